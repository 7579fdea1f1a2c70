"""Background work of several real processes on one database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from config import ROOT
from tests.neighbours.processes import wait_until


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: that a lease is given once is tested on both."""
    return one_database_url


def test_work_is_shared_by_processes_and_taken_over_when_one_is_killed(
    app: Flask, environment: dict[str, str], tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.touch()
    given = {"PATH": os.environ["PATH"], "FLASK_SKIP_DOTENV": "1", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, Path(__file__).with_name("background_worker.py"), lines, "1"]
    workers = [subprocess.Popen(command, env=given, cwd=ROOT) for _ in range(2)]
    try:
        # One has done its work, and the second time somebody is in the midst of it.
        assert wait_until(lambda: len(lines.read_text().splitlines()) >= 3, 60)
        assert_one_at_a_time(lines.read_text())
        before = lines.read_text().splitlines()
        dead = int(before[-1].split()[0])
        os.kill(dead, signal.SIGKILL)
        assert wait_until(lambda: len(lines.read_text().splitlines()) >= len(before) + 2, 30)
        after = lines.read_text().splitlines()[len(before) :]
        assert str(dead) not in {line.split()[0] for line in after}
        assert float(after[0].split()[1]) - float(before[-1].split()[1]) >= 1
        assert_one_at_a_time("\n".join(after))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(10)


def assert_one_at_a_time(lines: str) -> None:
    """Each process writes two lines; nobody's stand between them."""
    owners = [line.split()[0] for line in lines.splitlines()]
    for first, second in zip(owners[::2], owners[1::2], strict=False):
        assert first == second, owners
