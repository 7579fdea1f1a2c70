"""What all neighbours share: ports, temporary folders, starting and stopping processes within bounded time."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

# Below the range from which Linux and macOS take the ports of outgoing connections: none of those can take
# the port of a neighbour that is stopped for a moment.
PORTS = range(20_000, 32_000)


class NeighbourError(Exception):
    """A neighbour did not start or stop; the message holds what it printed."""


class ReservedPort:
    """A free TCP port of 127.0.0.1 that no other test process takes until ``release``.

    The mark between test processes is a UDP socket bound to the same number. It goes away with the process,
    and it does not disturb the server that listens on the TCP port.
    """

    def __init__(self) -> None:
        for number in random.sample(PORTS, 200):
            holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                holder.bind(("127.0.0.1", number))
            except OSError:
                holder.close()
                continue
            if is_free(number):
                self.number = number
                self._holder = holder
                return
            holder.close()
        raise NeighbourError("no free port found among 200")

    def release(self) -> None:
        self._holder.close()


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this TCP port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(ready: Callable[[], bool], timeout_seconds: float, pause_seconds: float = 0.01) -> bool:
    """Ask ``ready`` again and again; return False when it has not said yes within the time."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_seconds)
    return True


@dataclass(frozen=True)
class User:
    """Under which ids a process runs."""

    uid: int
    gid: int


def start(
    command: Sequence[str | os.PathLike[str]],
    *,
    output: IO[bytes] | int,
    errors: IO[bytes] | int = subprocess.STDOUT,
    environment: Mapping[str, str],
    folder: Path,
    user: User | None = None,
    last_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C in the terminal does not reach it.

    ``last_signal`` is what the watchdog sends if the test run itself is killed.
    """
    ids = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
        **ids,  # type: ignore[call-overload]
    )
    watch(process.pid, last_signal)
    return process


def watch(group: int, last_signal: signal.Signals = signal.SIGTERM) -> None:
    """Let a process group, which ``stop`` is going to end, be ended also when the test run itself is killed."""
    _tell_watchdog(f"group {group} {int(last_signal)}")


class Stoppable(Protocol):
    """What ``stop`` needs of a process, which is the first of its group."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...


def stop(process: Stoppable, *signals: signal.Signals, patience_seconds: float = 10.0) -> int:
    """Send each signal in turn until the process ends, then SIGKILL to what is left of its group. Return its status."""
    for number in signals:
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    status = process.wait(10)
    _tell_watchdog(f"group-ended {process.pid}")
    return status


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent this one is (Linux)."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.name))
    return found


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder that is removed at the end, also when the test run is killed."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _tell_watchdog(f"folder {path}")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _tell_watchdog(f"folder-removed {path}")


_watchdog: subprocess.Popen[bytes] | None = None
_watchdog_lock = threading.Lock()


def _tell_watchdog(line: str) -> None:
    global _watchdog
    with _watchdog_lock:
        if _watchdog is None:
            script = Path(__file__).with_name("watchdog.py")
            _watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", script], stdin=subprocess.PIPE, start_new_session=True
            )
            atexit.register(_dismiss_watchdog)
        assert _watchdog.stdin is not None
        _watchdog.stdin.write(line.encode() + b"\n")
        _watchdog.stdin.flush()


def _dismiss_watchdog() -> None:
    assert _watchdog is not None
    assert _watchdog.stdin is not None
    _watchdog.stdin.close()
    _watchdog.wait(20)
