"""Connections to providers: kept alive, certificates verified, every wait bounded.

Requests are written here, in one piece, and ``wire`` reads the answers. That takes a fraction of the processor time of
urllib3, and lets a call have one time in which all its waits must fit.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit
from weakref import WeakSet

from services.gateway.line import Line
from services.gateway.wire import Response

_IDLE_CONNECTIONS = 256
# Providers close what lies idle after a minute or more; an older one is not worth the risk.
_LONGEST_IDLE_SECONDS = 50.0
_JOINED_BYTES = 64 * 1024
# Nothing to read after all, or a part only of what TLS has to see whole.
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)


class Origin(NamedTuple):
    """Where connections go."""

    host: str
    port: int
    encrypted: bool

    @property
    def name(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.encrypted else 80) else f"{host}:{self.port}"

    @classmethod
    def of(cls, url: str) -> tuple[Origin, str]:
        """Return the origin and the path of an http or https address."""
        told = urlsplit(url)
        encrypted = told.scheme == "https"
        return cls(told.hostname or "", told.port or (443 if encrypted else 80), encrypted), told.path or "/"


class Connection:
    """One connection. It carries one request at a time."""

    def __init__(self, origin: Origin, stream: socket.socket) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.wait_seconds = 0.0
        # When the call's time is over, as ``time.monotonic`` tells it; None: the waits alone are bounded.
        self.until: float | None = None
        self._stream = stream
        self._to_read = select.poll()
        self._to_read.register(stream, select.POLLIN)
        self._bound_seconds = -1.0
        # How much TLS has read already: the system does not tell of that.
        self._read_ahead: Callable[[], int] = stream.pending if isinstance(stream, ssl.SSLSocket) else int
        # Set while it carries a stream, and whether it is this stream's turn.
        self._line: Line | None = None
        self._has_turn = False

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request. Raises OSError when it could not be handed over whole."""
        self._bound()
        if len(body) <= _JOINED_BYTES:
            self._stream.sendall(head + body)
        else:
            self._stream.sendall(head)
            self._stream.sendall(body)

    def answer(self, method: str) -> Response:
        """Read the head of the answer. Raises OSError or wire.Malformed."""
        return Response(self._receive, method)

    def is_fresh(self) -> bool:
        """Tell whether it can carry another request: not too old, and nothing to read, which would be its end."""
        if time.monotonic() - self.idle_since > _LONGEST_IDLE_SECONDS:
            return False
        return not self._to_read.poll(0)

    def begin_stream(self, line: Line) -> None:
        """Read in turn with those in ``line`` from here on. The waits are bounded, and no longer the whole."""
        self.until = None
        self._line = line
        self._stream.settimeout(0)
        self._bound_seconds = 0

    def end_turn(self) -> None:
        """Let other streams go on: what was read is being passed on."""
        if self._has_turn:
            assert self._line is not None
            self._has_turn = False
            self._line.leave()

    def end_stream(self) -> None:
        """Undo ``begin_stream``."""
        self.end_turn()
        self._line = None

    def close(self) -> None:
        self.end_stream()
        with contextlib.suppress(OSError):
            self._stream.close()

    def _receive(self, most: int) -> bytes:
        if self._line is not None:
            return self._receive_in_turn(self._line, most)
        if self.until is not None or self.wait_seconds != self._bound_seconds:
            self._bound()
        return self._stream.recv(most)

    def _receive_in_turn(self, line: Line, most: int) -> bytes:
        while True:
            if self._has_turn:
                self.end_turn()
            if not (self._read_ahead() or self._to_read.poll(self.wait_seconds * 1000)):
                raise TimeoutError
            line.enter()
            self._has_turn = True
            try:
                return self._stream.recv(most)
            except _NOTHING_YET:
                continue

    def interrupt(self) -> None:
        """Let whoever waits for it, in another thread, find it broken."""
        with contextlib.suppress(OSError):
            # Not TLS's own way, which would wait for the other side.
            socket.socket.shutdown(self._stream, socket.SHUT_RDWR)

    def _bound(self) -> None:
        seconds = self.wait_seconds
        if self.until is not None:
            seconds = min(seconds, self.until - time.monotonic())
            if seconds <= 0:
                raise TimeoutError
        if seconds != self._bound_seconds:
            self._stream.settimeout(seconds)
            self._bound_seconds = seconds


class Connections:
    """The idle connections of one process, by where they go."""

    def __init__(self, *, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._context = ssl.create_default_context()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._all: WeakSet[Connection] = WeakSet()
        self._lock = threading.Lock()
        # For all streams of the process.
        self.line = Line()

    def take_idle(self, origin: Origin) -> Connection | None:
        """Return the connection that was used last and is still good, None when there is none."""
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                connection = idle.pop()
            if connection.is_fresh():
                return connection
            connection.close()

    def open(self, origin: Origin, most_seconds: float) -> Connection:
        """Connect. Raises OSError, of which ssl.SSLError is one."""
        seconds = min(self._connect_seconds, most_seconds)
        if seconds <= 0:
            raise TimeoutError
        plain = socket.create_connection((origin.host, origin.port), timeout=seconds)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = self._context.wrap_socket(plain, server_hostname=origin.host) if origin.encrypted else plain
        except BaseException:
            plain.close()
            raise
        connection = Connection(origin, stream)
        with self._lock:
            self._all.add(connection)
        return connection

    def interrupt(self) -> None:
        """Break every connection, at work or idle."""
        with self._lock:
            found = list(self._all)
        for connection in found:
            connection.interrupt()

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end, and close one that nobody has needed for long."""
        connection.end_stream()
        connection.idle_since = now = time.monotonic()
        with self._lock:
            idle = self._idle.setdefault(connection.origin, deque())
            idle.append(connection)
            # The oldest comes first. After a rush many are left that nobody takes again.
            is_old = now - idle[0].idle_since > _LONGEST_IDLE_SECONDS
            surplus = idle.popleft() if is_old or len(idle) > _IDLE_CONNECTIONS else None
        if surplus is not None:
            surplus.close()
