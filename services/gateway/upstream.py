"""Requests to providers, and their answers as they come. Redirects are not followed."""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from services.gateway.connections import Connection, Connections, Origin
from services.gateway.wire import Response
from services.secret import Secret

# An answer that is taken whole is kept in memory.
MOST_BYTES = 64_000_000
_CHUNK_BYTES = 64 * 1024
_USER_AGENT = "arka-portal"
_ZIPPED = {"gzip", "x-gzip", "deflate"}
_BROKEN = "the connection failed"
# How a connection fails that the other side has closed.
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Unreachable(Exception):
    """No answer, or a broken one. ``reason`` is a public half-sentence without address or key.

    ``taken`` says that the request was handed over whole, so that it may be carried out although no answer came.
    """

    def __init__(self, reason: str, *, late: bool = False, taken: bool = True) -> None:
        self.reason = reason
        self.late = late
        self.taken = taken
        super().__init__(reason)


class TooLarge(Exception):
    """The answer is larger than anybody wants to keep."""


class Answer:
    """A provider's answer whose body has not been read yet. Close it, or read it to its end."""

    def __init__(self, response: Response, connection: Connection, pool: Connections) -> None:
        self.status = response.status
        self.content_type = response.header("content-type") or "application/json"
        self.retry_after = response.header("retry-after")
        self._coding = (response.header("content-encoding") or "identity").strip().lower()
        self._response = response
        self._connection = connection
        self._pool = pool
        self._open = True

    def header(self, name: str) -> str | None:
        return self._response.header(name.lower())

    def read(self, most: int | None = None) -> bytes:
        """Return the body, or its first ``most`` bytes.

        Raises Unreachable when it breaks off, and TooLarge when it is larger than any answer may be.
        """
        if most is None and self._coding == "identity" and (whole := self._response.at_hand()) is not None:
            self.close()
            return whole
        pieces, size = [], 0
        try:
            for piece in self.chunks():
                pieces.append(piece)
                size += len(piece)
                if most is not None and size >= most:
                    break
                if size > MOST_BYTES:
                    raise TooLarge
        finally:
            self.close()
        return b"".join(pieces)[:most]

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's bytes as they arrive. Raises Unreachable when it breaks off."""
        return self._raw_chunks() if self._coding == "identity" else self._unzipped()

    def let_run(self) -> None:
        """Bound only the waits from here on, and no longer the whole: a stream may take its time.

        Its reader takes turns with those of other streams, and says ``end_turn`` when it has read what it needs.
        """
        self._connection.begin_stream(self._pool.line)

    def end_turn(self) -> None:
        """Let the readers of other streams go on. Does nothing when it is not this one's turn."""
        self._connection.end_turn()

    def close(self) -> None:
        """Give the connection back, or drop it when there is more to come on it."""
        if not self._open:
            return
        self._open = False
        if self._response.leaves_connection:
            self._pool.give_back(self._connection)
        else:
            self._connection.close()

    def _raw_chunks(self) -> Iterator[bytes]:
        try:
            yield from self._response.pieces()
        except (OSError, ValueError) as error:
            # What is left of it must not be taken for the answer to the next request.
            self._response.will_close = True
            raise _unreachable(error) from error

    def _unzipped(self) -> Iterator[bytes]:
        """Unpack an answer of a provider that compresses although it was asked not to."""
        if self._coding not in _ZIPPED:
            raise Unreachable("it answered in a coding that nobody asked for")
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        for chunk in self._raw_chunks():
            while chunk:
                try:
                    piece = unpack.decompress(chunk, _CHUNK_BYTES)
                except zlib.error as error:
                    raise Unreachable("its answer could not be unpacked") from error
                if piece:
                    yield piece
                chunk = unpack.unconsumed_tail
        if not unpack.eof:
            raise Unreachable(_BROKEN)


class Upstream:
    """Sends requests over the kept connections of one process."""

    def __init__(self, *, connect_seconds: float, read_seconds: float) -> None:
        self._connections = Connections(connect_seconds=connect_seconds)
        self._read_seconds = read_seconds

    def send(
        self,
        method: str,
        url: str,
        key: Secret | None,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        read_seconds: float | None = None,
        until: float | None = None,
    ) -> Answer:
        """Send a request, with the provider key if there is one, and return the answer's head.

        ``read_seconds`` shortens the wait for each byte; ``until`` ends all waits, as ``time.monotonic`` tells it.
        Raises Unreachable.
        """
        origin, path = _place(url)
        head = _head(method, origin, path, key, body, headers or {})
        request = _Request(method, head, body or b"", read_seconds or self._read_seconds, until)
        kept = self._connections.take_idle(origin)
        if kept is not None:
            try:
                return self._ask(kept, request)
            except Unreachable as error:
                # One that was closed while it lay idle has not taken the whole request, so nothing is done twice.
                if error.taken or error.late:
                    raise
        return self._ask(self._connect(origin, request), request)

    def interrupt(self) -> None:
        """Break off all that is being asked: the process has to end."""
        self._connections.interrupt()

    def _connect(self, origin: Origin, request: _Request) -> Connection:
        try:
            return self._connections.open(origin, request.seconds_left())
        except (OSError, ValueError) as error:
            raise _unreachable(error, taken=False) from error

    def _ask(self, connection: Connection, request: _Request) -> Answer:
        connection.wait_seconds, connection.until = request.wait_seconds, request.until
        sent = False
        try:
            try:
                connection.send(request.head, request.body)
                sent = True
            except _CLOSED:
                # It may answer before it has read all, and close: then there is something to read all the same.
                sent = False
            return Answer(connection.answer(request.method), connection, self._connections)
        except (OSError, ValueError) as error:
            connection.close()
            raise _unreachable(error, taken=sent) from error


class _Request(NamedTuple):
    method: str
    head: bytes
    body: bytes
    wait_seconds: float
    until: float | None

    def seconds_left(self) -> float:
        return self.wait_seconds if self.until is None else min(self.wait_seconds, self.until - time.monotonic())


_place = lru_cache(maxsize=256)(Origin.of)


def _head(
    method: str, origin: Origin, path: str, key: Secret | None, body: bytes | None, headers: Mapping[str, str]
) -> bytes:
    lines = [_first_lines(method, origin, path)]
    if key is not None:
        lines.append(f"Authorization: Bearer {key.reveal()}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    _check("".join(lines[1:]))
    return "\r\n".join([*lines, "", ""]).encode("ascii")


@lru_cache(maxsize=256)
def _first_lines(method: str, origin: Origin, path: str) -> str:
    lines = (
        f"{method} {path} HTTP/1.1",
        f"Host: {origin.name}",
        f"User-Agent: {_USER_AGENT}",
        # Bytes are passed on as they come, so they must not come compressed.
        "Accept-Encoding: identity",
    )
    _check("".join(lines))
    return "\r\n".join(lines)


def _check(text: str) -> None:
    """Raise ValueError for what no header may hold: a line break would begin another one."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a header holds what no header may hold")


def _unreachable(error: Exception, *, taken: bool = True) -> Unreachable:
    if isinstance(error, TimeoutError):
        return Unreachable("it did not answer in time", late=True, taken=taken)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable("its certificate could not be verified", taken=taken)
    return Unreachable(_BROKEN, taken=taken)
