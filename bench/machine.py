"""Processes, ports and processor time, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A program did not start, or does not answer."""


class Program:
    """A program in a session of its own, with all that it starts."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], folder: Path, log: Path, cores: set[int]
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(self._process.pid, cores)

    def wait_until_up(self, url: str, seconds: float) -> None:
        """Wait for any answer from an address. Raises Failed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except urllib.error.HTTPError:
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
        raise Failed(f"nothing answers at {url}")

    def tree(self) -> list[int]:
        """The ids of its processes."""
        return tree_of(self._process.pid)

    def cpu_seconds(self) -> float:
        return sum(_cpu_seconds(pid) for pid in self.tree())

    def memory_mib(self) -> float:
        """The resident memory of all its processes; what they share counts for each."""
        return sum(_resident_pages(pid) for pid in self.tree()) * _PAGE / 2**20

    def kill(self) -> None:
        """End all of it at once by SIGKILL."""
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End all of it, properly if it can."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.kill()


def tree_of(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@contextlib.contextmanager
def running(program: Program) -> Iterator[Program]:
    """Stop the program in the end."""
    try:
        yield program
    finally:
        program.stop()
