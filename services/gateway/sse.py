"""Server-sent events as the providers' streams use them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.gateway.endpoints import Endpoint, Seen

CONTENT_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
_LONGEST_HELD_BYTES = 64 * 1024
_LONGEST_READ_BYTES = 1_000_000
# As much as about thirty events of a chat.
_MOST_UNREAD_BYTES = 8 * 1024


def event(data: Mapping[str, Any]) -> bytes:
    """Return one event that carries ``data`` as JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class StreamReader:
    """Reads along while bytes are passed on unchanged, and takes note of usage, text, and the end.

    Only whole lines are passed on, so that a stream that breaks off in the middle of one can still be ended by an
    event of ours. A line longer than 64 KiB is passed on in pieces; one longer than a megabyte is not read, and counts
    as text. ``without_usage`` leaves out the one event that holds nothing but usage, for a caller who did not ask.

    What only adds to the counts is read later, many events in a row: of a thousand streams that take turns, each finds
    nothing in the processor's caches that reading an event needs.
    """

    def __init__(self, endpoint: Endpoint, *, without_usage: bool = False) -> None:
        assert endpoint.note is not None
        self._seen = Seen()
        self._note = endpoint.note
        self._find_urgent = endpoint.urgent.search
        self._ends_with_done = endpoint.ends_with_done
        self._without_usage = without_usage
        self._line = bytearray()
        self._passed_on = 0
        # An event was left out, and the empty line that ends it is still to come.
        self._leaving_out = False
        self._unread: list[bytes] = []
        self._unread_bytes = 0

    @property
    def seen(self) -> Seen:
        """What was seen so far."""
        self._catch_up()
        return self._seen

    @property
    def finished(self) -> bool:
        """Whether the stream has come to its end."""
        return self._seen.finished

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes, cut anywhere, and return what may be passed on now; it may be nothing."""
        if not self._line and chunk[-1:] == b"\n":
            return self._take(chunk, 0)
        end = chunk.rfind(b"\n") + 1
        ready = b""
        if end:
            lines = bytes(self._line) + chunk[:end] if self._line else chunk[:end]
            ready = self._take(lines, self._passed_on)
            self._line.clear()
            self._passed_on = 0
        self._line += chunk[end:]
        if len(self._line) - self._passed_on > _LONGEST_HELD_BYTES:
            ready += self.rest()
        return ready

    def rest(self) -> bytes:
        """Return what was held back of an unfinished line; it then counts as passed on."""
        held = bytes(self._line[self._passed_on :])
        self._passed_on = len(self._line)
        if self._passed_on > _LONGEST_READ_BYTES:
            # Nothing that long is a report of usage, and keeping it would cost memory.
            self._seen.text_bytes += self._passed_on
            # What follows in this line must not be taken for the beginning of one.
            self._line[:] = b" "
            self._passed_on = 1
        return held

    def _take(self, lines: bytes, passed_on: int) -> bytes:
        """Read whole lines now or later, and return what may be passed on of them."""
        if passed_on or self._leaving_out or b"[DONE]" in lines or b"\\u00" in lines or self._find_urgent(lines):
            self._catch_up()
            return self._read(lines, passed_on)
        self._unread.append(lines)
        self._unread_bytes += len(lines)
        if self._unread_bytes > _MOST_UNREAD_BYTES:
            self._catch_up()
        return lines

    def _catch_up(self) -> None:
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for lines in unread:
            self._read(lines, 0)

    def _read(self, lines: bytes, passed_on: int) -> bytes:
        """Read whole lines, of which the first may be passed on in part; return what may be passed on of them."""
        left_out = []
        start = 0
        while start < len(lines):
            end = lines.index(b"\n", start) + 1
            if self._leaves_out(lines[start:end], whole=start >= passed_on):
                left_out.append((start, end))
            start = end
        if not left_out:
            return lines[passed_on:] if passed_on else lines
        kept, start = [], passed_on
        for gap_start, gap_end in left_out:
            kept.append(lines[start:gap_start])
            start = gap_end
        return b"".join([*kept, lines[start:]])

    def _leaves_out(self, line: bytes, *, whole: bool) -> bool:
        """Take note of a line, and tell whether it belongs to the event that is left out."""
        if line.startswith(b"data:"):
            self._leaving_out = self._is_only_usage(line[5:].strip()) and self._without_usage and whole
            return self._leaving_out
        ends_left_out = self._leaving_out and line in (b"\n", b"\r\n")
        self._leaving_out = False
        return ends_left_out

    def _is_only_usage(self, data: bytes) -> bool:
        if data == b"[DONE]":
            self._seen.finished = self._seen.finished or self._ends_with_done
            return False
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(content, dict):
            return False
        self._note(self._seen, content)
        return content.get("choices") == [] and isinstance(content.get("usage"), dict)
