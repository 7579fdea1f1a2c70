"""What workers are forked from, and what they set up before they serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_threads_that_wait_for_the_interpreter_leave_the_processor_alone() -> None:
    program = (
        "import ctypes, resource, threading\n"
        "from services import worker\n"
        "worker.let_many_threads_wait()\n"
        "begin = threading.Barrier(101)\n"
        "for _ in range(100): threading.Thread(target=begin.wait).start()\n"
        "begin.wait()\n"
        "switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw\n"
        # Of what is called so the interpreter is not given up: the hundred wait for it all the time.
        "ctypes.PyDLL(None).usleep(500_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    # Left as Python has it, each looks a hundred times.
    assert int(done.stdout) < 100 * 30


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ARKA_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c", "ARKA_RATELIMIT_STORAGE_URI": "redis://127.0.0.1:1/0"},
    ],
    ids=["embedded", "grown"],
)
def test_what_workers_are_forked_from_has_no_thread_and_nothing_open(settings: dict[str, str], tmp_path: Path) -> None:
    """Two processes cannot share a connection, and a thread is not forked."""
    program = (
        "import os, app\n"
        "before = {os.readlink(f.path) for f in os.scandir('/proc/self/fd') if os.path.lexists(f.path)}\n"
        "app.create_app()\n"
        "from services import worker\n"
        "after = {os.readlink(f.path) for f in os.scandir('/proc/self/fd') if os.path.lexists(f.path)}\n"
        "print(len(os.listdir('/proc/self/task')), [name for name in after - before if not name.startswith('/proc')])\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "FLASK_SKIP_DOTENV": "1",
        "ARKA_INSTANCE_PATH": str(tmp_path),
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert done.stdout.split("\n")[0] == "1 []"
