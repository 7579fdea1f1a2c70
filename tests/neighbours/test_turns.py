"""Which tests run beside which in a run with several workers: those marked ``alone`` and ``waits``, and the others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.neighbours.processes import wait_until
from tests.neighbours.turns import Turns

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

@pytest.mark.waits
@pytest.mark.parametrize("number", range(4))
def test_that_waits(number):
    note("+ waits")
    time.sleep(0.3)
    note("- waits")

@pytest.mark.parametrize("number", range(20))
def test_later(number):
    test_ordinary(number)
"""


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What was running at each moment of a run on a machine of two processors."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "test_made_up.py").write_text(TESTS)
    options = ["-n", "auto", "--dist", "worksteal", "-p", "tests.neighbours.turns", "-c", os.devnull]
    command = [sys.executable, "-m", "pytest", "-q", *options, "--rootdir", folder, folder / "test_made_up.py"]
    environment = os.environ | {"PYTEST_XDIST_AUTO_NUM_WORKERS": "2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "48 passed" in done.stdout, done.stdout + done.stderr
    running: list[str] = []
    moments = []
    for line in (folder / "notes").read_text().splitlines():
        act, name = line.split()
        if act == "+":
            running.append(name)
        else:
            running.remove(name)
        moments.append(list(running))
    return moments


def test_nothing_runs_beside_a_test_that_is_to_be_alone(at_once: list[list[str]]) -> None:
    assert ["alone"] in at_once
    assert all(running == ["alone"] for running in at_once if "alone" in running)


def test_of_ordinary_tests_there_runs_one_more_than_processors_and_beside_them_one_that_waits(
    at_once: list[list[str]],
) -> None:
    assert max(running.count("ordinary") for running in at_once) == 3
    assert any(running.count("ordinary") == 3 and "waits" in running for running in at_once)


def test_who_wants_to_be_alone_is_not_overtaken(tmp_path: Path) -> None:
    first, alone, later = Turns(tmp_path), Turns(tmp_path), Turns(tmp_path)
    order: list[str] = []

    def take(turns: Turns, name: str) -> None:
        with turns.turn(alone=name == "alone", seated=False):
            order.append(name)

    threads = [threading.Thread(target=take, args=pair) for pair in ((alone, "alone"), (later, "later"))]
    with first.turn(seated=False):
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
