"""What a worker sets up before it serves."""

from __future__ import annotations

import subprocess
import sys

from config import ROOT


def test_every_call_at_work_may_have_its_files_open() -> None:
    program = (
        "import resource as r\n"
        "from services import worker\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
        "worker.allow_open_files(300)\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])\n"
        "worker.allow_open_files(200)\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["300", "300"]
