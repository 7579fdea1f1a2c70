"""Tests that are marked ``alone`` have the machine for themselves, in a run with several workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.neighbours.alone import Turns
from tests.neighbours.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import time
from pathlib import Path
import pytest

def note(line):
    with Path(__file__).with_name("notes").open("a") as notes:
        notes.write(line + "\\n")

@pytest.mark.parametrize("number", range(20))
def test_ordinary(number):
    note("+ ordinary")
    time.sleep(0.02)
    note("- ordinary")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(4))
def test_by_itself(number):
    note("+ alone")
    time.sleep(0.05)
    note("- alone")

@pytest.mark.parametrize("number", range(20))
def test_later(number):
    test_ordinary(number)
"""


def test_nothing_runs_beside_a_test_that_is_to_be_alone(tmp_path: Path) -> None:
    (tmp_path / "test_made_up.py").write_text(TESTS)
    options = [
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-p",
        "tests.neighbours.alone",
        "-c",
        os.devnull,
        "--rootdir",
        tmp_path,
    ]
    command = [sys.executable, "-m", "pytest", "-q", *options, tmp_path / "test_made_up.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "44 passed" in done.stdout, done.stdout + done.stderr
    running: list[str] = []
    most = 0
    for line in (tmp_path / "notes").read_text().splitlines():
        act, name = line.split()
        if act == "+":
            running.append(name)
            assert "alone" not in running or running == ["alone"]
        else:
            running.remove(name)
        most = max(most, len(running))
    assert most == 2, "the workers did not run side by side, so nothing is shown"


def test_who_wants_to_be_alone_is_not_overtaken(tmp_path: Path) -> None:
    first, alone, later = Turns(tmp_path), Turns(tmp_path), Turns(tmp_path)
    order: list[str] = []

    def take(turns: Turns, name: str) -> None:
        with turns.turn(alone=name == "alone"):
            order.append(name)

    threads = [threading.Thread(target=take, args=pair) for pair in ((alone, "alone"), (later, "later"))]
    with first.turn(alone=False):
        threads[0].start()
        # It stands in the gate now, where the next one cannot pass.
        assert wait_until(lambda: not gate_is_free(tmp_path), 10)
        threads[1].start()
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["alone", "later"]


def gate_is_free(folder: Path) -> bool:
    """Tell whether the gate is free."""
    script = f"import fcntl; fcntl.flock(open({str(folder / 'gate')!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL).returncode == 0
