"""The process that watches over the workers, with children of ours in their place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import watcher
from tests.neighbours.portal import running_portal
from tests.neighbours.processes import wait_until

pytestmark = [pytest.mark.embedded, pytest.mark.waits]

# Forks a greeter and two workers, as `flask serve` does, and becomes the watcher.
PROGRAM = """
import json, os, select, signal, sys, time

acts = json.loads(sys.argv[1])
read, write = os.pipe()
claim = os.open(os.devnull, os.O_RDONLY)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
children = []
for act in acts:
    pid = os.fork()
    if pid == 0:
        os.close(write)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT, signal.SIGHUP})
        exec(act)
        os._exit(0)
    children.append(str(pid))
for number in (claim, read, write):
    os.set_inheritable(number, True)
print(json.dumps(children), flush=True)
os.execv(sys.executable, [sys.executable, "-I", "-S", *sys.argv[2:], str(claim), str(read), str(write), *children])
"""
GREETS = "time.sleep(0.1)"
SERVES = "time.sleep(60)"
HEEDS_NOTHING = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
TELLS_OF_THE_WORD = "select.select([read], [], []); print('told', flush=True); time.sleep(60)"

Watched = tuple[subprocess.Popen[str], list[int]]


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    """Start a watcher: ``watched(*acts, drain=0, stop=1)``, the greeter's act first. Gives it and its children."""
    started: list[Watched] = []

    def start(*acts: str, drain: float = 0.0, stop: float = 1.0) -> Watched:
        arguments = [json.dumps(acts), watcher.__file__, str(drain), str(stop), "127.0.0.1"]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        started.append((process, json.loads(process.stdout.readline())))
        return process, [int(pid) for pid in started[-1][1]]

    yield start
    for process, _ in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_worker_that_ends_before_the_portal_answers_ends_the_start(watched: Callable[..., Watched]) -> None:
    process, children = watched(SERVES, SERVES, "os._exit(3)")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "did not start" in errors
    assert not any(map(is_alive, children))


def test_workers_are_told_first_and_ended_after_the_time_to_drain(watched: Callable[..., Watched]) -> None:
    process, children = watched(GREETS, TELLS_OF_THE_WORD, TELLS_OF_THE_WORD, drain=1.5)
    assert wait_until(lambda: not is_alive(children[0]), 10)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert output.count("told") == 2
    assert 1.5 <= time.monotonic() - began < 5
    assert process.returncode == 0
    assert not any(map(is_alive, children))


def test_the_port_is_let_go_when_the_workers_are_to_end_and_not_before(watched: Callable[..., Watched]) -> None:
    process, children = watched(GREETS, HEEDS_NOTHING, drain=3.0, stop=60)
    assert wait_until(lambda: not is_alive(children[0]), 10)

    def holds() -> bool:
        return os.devnull in [
            os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir() if int(path.name) > 2
        ]

    assert holds()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert holds()
    assert wait_until(lambda: not holds(), 10)
    assert is_alive(children[1])


def test_a_worker_that_heeds_nothing_is_killed_when_its_time_is_up(watched: Callable[..., Watched]) -> None:
    process, children = watched(GREETS, HEEDS_NOTHING, SERVES, stop=0.5)
    assert wait_until(lambda: not is_alive(children[0]), 10)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert 5 <= time.monotonic() - began < 12
    assert process.returncode == 0
    assert not any(map(is_alive, children))


def test_a_signal_that_comes_before_it_watches_is_heeded(watched: Callable[..., Watched]) -> None:
    process, children = watched(SERVES, SERVES)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert not any(map(is_alive, children))


def test_the_process_that_watches_holds_nothing_of_the_portal() -> None:
    with running_portal({"ARKA_DEMO": "0"}, workers=1, from_nothing=True) as portal:
        assert wait_until(lambda: "Ctrl-C" in portal.stdout(), 20)
        status = Path(f"/proc/{portal.pid}/status").read_text()
        mapped = Path(f"/proc/{portal.pid}/maps").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert resident < 30_000
    assert "site-packages" not in mapped
