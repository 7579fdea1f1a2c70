"""Runs the portal's commands in processes that are forked from one in which the portal is already loaded.

A new Python needs longer to load the portal than a command runs. Each command is still a process of its own, with its
own arguments, environment, standard streams and exit status; only the modules are there when it begins. That every
command also runs from nothing, as an operator runs it, is tested in ``tests/portal/test_commands_from_nothing.py``, and
that the portal starts so in ``tests/portal/test_first_start.py``.

As a script (``python -m tests.neighbours.prepared SOCKET``) this file is the process that they are forked from.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from sqlalchemy.orm import configure_mappers

from services import prices
from services.gateway import brain_rules
from tests.neighbours import processes

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
PROGRAM = "python -m flask"
_NUMBER = struct.Struct("i")


class Process:
    """A command that goes on by itself, told of as ``subprocess.Popen`` tells. It leads a session of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = _number(connection)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired([PROGRAM], timeout or 0)
            self.returncode = _number(self._connection)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def start(arguments: Sequence[str], environment: Mapping[str, str], *, output: IO[bytes], errors: IO[bytes]) -> Process:
    """Start ``flask --app app ARGUMENTS`` and go on."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_prepared())
    with open(os.devnull, "rb") as nothing:
        _send(connection, [list(arguments), dict(environment), True], [nothing, output, errors])
    process = Process(connection)
    processes.watch(process.pid)
    return process


def run(
    arguments: Sequence[str], environment: Mapping[str, str], *, input: str, timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run ``flask --app app ARGUMENTS`` and wait. Raises subprocess.TimeoutExpired, and ends it then."""
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3)]
        streams[0].write(input)
        streams[0].seek(0)
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(_prepared())
        connection.settimeout(timeout_seconds)
        _send(connection, [list(arguments), dict(environment), False], streams)
        pid = _number(connection)
        try:
            status = _number(connection)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([PROGRAM, *arguments], timeout_seconds) from None
        printed = [_text(stream) for stream in streams[1:]]
    return subprocess.CompletedProcess([PROGRAM, *arguments], status, *printed)


def _send(connection: socket.socket, message: object, streams: Sequence[IO[Any]]) -> None:
    numbers = array.array("i", [stream.fileno() for stream in streams])
    connection.sendmsg([b"\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
    connection.sendall(json.dumps(message).encode() + b"\n")


def _number(connection: socket.socket) -> int:
    """Read a number. Of a process that was ended with all the others nobody tells one."""
    told = connection.recv(_NUMBER.size, socket.MSG_WAITALL)
    return int(_NUMBER.unpack(told)[0]) if told else -signal.SIGKILL


def _text(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


@functools.cache
def _prepared() -> str:
    """Start the process, once in each test process; return its address."""
    stack = contextlib.ExitStack()
    folder = stack.enter_context(processes.temporary_folder("arka-commands-"))
    # After what the folder needs at the end has been registered: that happens in reverse.
    atexit.register(stack.close)
    address, log = folder / "socket", folder / "log"
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "FLASK_SKIP_DOTENV": "1"}
    command = [sys.executable, "-m", "tests.neighbours.prepared", str(address)]
    with log.open("ab") as output:
        process = processes.start(command, output=output, environment=environment, folder=ROOT)
    stack.callback(processes.stop, process, signal.SIGTERM)
    processes.wait_until(lambda: address.exists() or process.poll() is not None, START_SECONDS)
    if process.poll() is not None or not address.exists():
        raise processes.NeighbourError("the portal could not be loaded:\n" + log.read_text(errors="replace"))
    return str(address)


# ---- in the process that is forked


def main(address: str) -> NoReturn:
    """Load the portal, then fork for each who asks."""
    _load()
    listener = socket.socket(socket.AF_UNIX)
    # Who sees the socket finds it ready.
    unready = address + ".unready"
    listener.bind(unready)
    listener.listen(64)
    os.rename(unready, address)
    # Nobody waits for those who watch over a command.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve(connection)
        connection.close()


def _load() -> None:
    for package in ("commands", "models", "services"):
        module = importlib.import_module(package)
        for found in pkgutil.walk_packages(module.__path__, package + "."):
            importlib.import_module(found.name)
    # The last is loaded when somebody chooses a password.
    for name in ("app", "flask.cli", "zxcvbn"):
        importlib.import_module(name)
    # What a process reads or works out once, when it is first asked for.
    configure_mappers()
    brain_rules.read(ROOT / "services" / "gateway" / "brain.toml")
    prices.load()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, "a process with threads cannot be forked safely"
    gc.collect()
    gc.freeze()


def _serve(connection: socket.socket) -> NoReturn:
    """Fork once more, for the command; tell its process id at once and its status when it has ended."""
    _, ancillary, *_ = connection.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    numbers = array.array("i", ancillary[0][2])
    with connection.makefile() as lines:
        arguments, environment, leads = json.loads(lines.readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        if leads:
            os.setsid()
        _become(arguments, environment, numbers)
    for number in numbers:
        os.close(number)
    connection.sendall(_NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(arguments: list[str], environment: dict[str, str], streams: Sequence[int]) -> NoReturn:
    """Be the command, and end as Python does, except that nothing is taken apart first: most of it was here before."""
    from flask.cli import cli

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["flask", "--app", "app", *arguments]
    status = 1
    try:
        cli.main(prog_name=PROGRAM)
    except SystemExit as end:
        # Click ends with a number always.
        status = int(str(end.code))
    except BaseException:
        traceback.print_exc()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
