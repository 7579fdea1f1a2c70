"""The answers of HTTP/1.1 as they come over a connection (RFC 9112), read strictly and in few steps.

``http.client`` makes every head a mail message and every event of a stream four calls, which costs as much as all the
rest that is done with an answer. What it would read in a doubtful way, so that the next answer could be taken for the
end of this one, is an error here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

_LONGEST_HEAD = 64 * 1024
# A chunk's size with its extensions, or a trailer.
_LONGEST_LINE = 8 * 1024
_PIECE_BYTES = 64 * 1024
_STEP_BYTES = 16 * 1024
_LONGEST_NUMBER = 15
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Malformed(ValueError):
    """What came is no HTTP answer, or not a whole one."""


class Response:
    """An answer whose head is read. ``receive`` gives the next bytes, at most as many as asked for, none at the end.

    Raises Malformed, and whatever ``receive`` raises.
    """

    def __init__(self, receive: Callable[[int], bytes], method: str) -> None:
        self._receive = receive
        self._buffer = b""
        self.status, self._headers, version = self._read_head()
        told = (self.header("connection") or "").lower()
        # Whether the connection carries no other answer after this one.
        self.will_close = "close" in told if version == 1 else "keep-alive" not in told
        # What is left of the body; None: it ends as its chunks say, or with the connection.
        self._left: int | None = None
        self._chunked = False
        self._frame(method)
        self.complete = self._left == 0
        # Within chunks: what is left of this one, whether its end is still to come, and whether it was the last.
        self._chunk_left = 0
        self._ends_chunk = False
        self._in_trailers = False

    def header(self, name: str) -> str | None:
        """Return a header by its name in lower case; several of one name are joined by commas."""
        return self._headers.get(name)

    @property
    def leaves_connection(self) -> bool:
        """Whether the connection can carry another answer: this one was read whole, and nothing came after it."""
        return self.complete and not self.will_close and not self._buffer

    def at_hand(self) -> bytes | None:
        """Return the body if all of it has come with the head, as that of most answers has."""
        if self._left is None or len(self._buffer) != self._left:
            return None
        body, self._buffer = self._buffer, b""
        self._left, self.complete = 0, True
        return body

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes; ``complete`` tells in the end that all of it came."""
        while not self.complete:
            if self._chunked:
                piece = self._next_of_chunks()
            elif self._left is None:
                piece = self._buffer or self._receive(_PIECE_BYTES)
                self._buffer = b""
                self.complete = not piece
            else:
                piece = self._next_of_length()
            if piece:
                yield piece

    def _next_of_length(self) -> bytes:
        assert self._left is not None
        found = self._buffer or self._receive(min(self._left, _PIECE_BYTES))
        if not found:
            raise Malformed("the answer breaks off")
        piece, self._buffer = found[: self._left], found[self._left :]
        self._left -= len(piece)
        self.complete = self._left == 0
        return piece

    def _next_of_chunks(self) -> bytes:
        """Return the chunks that came together, or the part of one that is here by now."""
        while not self.complete:
            if not self._buffer:
                self._fill()
            if not (self._chunk_left or self._ends_chunk or self._in_trailers) and (piece := self._whole_chunks()):
                return piece
            if self._chunk_left and self._buffer:
                piece, self._buffer = self._buffer[: self._chunk_left], self._buffer[self._chunk_left :]
                self._chunk_left -= len(piece)
                return piece
            end = -1 if self._chunk_left else self._buffer.find(b"\n")
            if end >= 0:
                line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
                self._take_line(line.removesuffix(b"\r"))
            elif len(self._buffer) > _LONGEST_LINE:
                raise Malformed("a line is too long")
            else:
                self._fill()
        return b""

    def _whole_chunks(self) -> bytes:
        """Return what is in the chunks that the buffer begins with and that are here to their ends.

        Whoever is late so takes fewer steps for what waits for him, and catches up.
        """
        first = self._whole_chunk()
        if not (first and self._buffer):
            return first
        chunks = [first]
        while chunk := self._whole_chunk():
            chunks.append(chunk)
        return b"".join(chunks)

    def _whole_chunk(self) -> bytes:
        """Return the chunk that the buffer begins with if all of it is here, as that of most events is."""
        buffer = self._buffer
        begin = buffer.find(b"\r\n") + 2
        size = buffer[: begin - 2]
        if begin < 3 or begin > _LONGEST_NUMBER or not _HEX.issuperset(size):
            return b""
        end = begin + int(size, 16)
        if end == begin or buffer[end : end + 2] != b"\r\n":
            return b""
        self._buffer = buffer[end + 2 :]
        return buffer[begin:end]

    def _take_line(self, line: bytes) -> None:
        if self._ends_chunk:
            if line:
                raise Malformed("a chunk is longer than it says")
            self._ends_chunk = False
        elif self._in_trailers:
            self.complete = not line
        else:
            size = line.partition(b";")[0].strip(b" \t")
            if not size or len(size) > _LONGEST_NUMBER or not _HEX.issuperset(size):
                raise Malformed("a chunk has no size")
            self._chunk_left = int(size, 16)
            self._ends_chunk = self._chunk_left > 0
            self._in_trailers = not self._ends_chunk

    def _fill(self) -> None:
        found = self._receive(_STEP_BYTES)
        if not found:
            raise Malformed("the answer breaks off")
        self._buffer = self._buffer + found if self._buffer else found

    def _read_head(self) -> tuple[int, dict[str, str], int]:
        """Return status, headers and the minor version of the protocol; interim answers are passed over."""
        while True:
            while (end := _end_of_head(self._buffer)) < 0:
                if len(self._buffer) > _LONGEST_HEAD:
                    raise Malformed("the head is too long")
                self._fill()
            lines = self._buffer[:end].decode("latin-1").split("\n")
            self._buffer = self._buffer[end:]
            version, status = _status_of(lines[0])
            if status >= 200 or status == 101:
                return status, _headers_of(lines), version

    def _frame(self, method: str) -> None:
        """Find out where the body ends (RFC 9112, section 6.3)."""
        coding, length = self.header("transfer-encoding"), self.header("content-length")
        if method == "HEAD" or self.status in (101, 204, 304):
            self._left = 0
        elif coding is not None and coding.strip().lower() != "identity":
            if coding.strip().lower() != "chunked":
                raise Malformed("a transfer coding that nobody asked for")
            self._chunked = True
        elif length is not None:
            numbers = {number.strip() for number in length.split(",")}
            number = numbers.pop()
            if numbers or not (number.isascii() and number.isdigit()) or len(number) > _LONGEST_NUMBER:
                raise Malformed("the length is no number")
            self._left = int(number)
        else:
            self.will_close = True


def _end_of_head(buffer: bytes) -> int:
    """Return where the body begins, -1 while the head is not whole. Some servers end lines with a bare line feed."""
    usual, bare = buffer.find(b"\r\n\r\n"), buffer.find(b"\n\n")
    if bare >= 0 and (usual < 0 or bare < usual):
        return bare + 2
    return usual + 4 if usual >= 0 else -1


def _status_of(line: str) -> tuple[int, int]:
    """Return the minor version and the status."""
    version, _, rest = line.partition(" ")
    status = rest.strip()[:3]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit()) or len(status) < 3:
        raise Malformed("no status line")
    return 0 if version == "HTTP/1.0" else 1, int(status)


def _headers_of(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    last = ""
    for line in lines[1:]:
        if line in ("", "\r"):
            continue
        if line[0] in " \t":
            if not last:
                raise Malformed("a header without a name")
            # An old way to break a long header into lines.
            headers[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed("a header without a name")
        last, value = name.lower(), value.strip()
        headers[last] = f"{headers[last]}, {value}" if last in headers else value
    return headers
