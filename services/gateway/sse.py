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


def event(data: Mapping[str, Any]) -> bytes:
    """Return one event that carries ``data`` as JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class StreamReader:
    """Reads along while bytes are passed on unchanged, and takes note of usage, text, and the end.

    Only whole lines are passed on, so that a stream that breaks off in the middle of one can still be ended by an
    event of ours. A line longer than 64 KiB is passed on in pieces; one longer than a megabyte is not read, and counts
    as text. ``without_usage`` leaves out the one event that holds nothing but usage, for a caller who did not ask.
    """

    def __init__(self, endpoint: Endpoint, *, without_usage: bool = False) -> None:
        assert endpoint.note is not None
        self.seen = Seen()
        self._note = endpoint.note
        self._ends_with_done = endpoint.ends_with_done
        self._without_usage = without_usage
        self._line = bytearray()
        self._passed_on = 0
        # An event was left out, and the empty line that ends it is still to come.
        self._leaving_out = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes, cut anywhere, and return what may be passed on now; it may be nothing."""
        end = chunk.rfind(b"\n") + 1
        ready = b""
        if end:
            lines = bytes(self._line) + chunk[:end] if self._line else chunk[:end]
            ready = self._read(lines, self._passed_on)
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
            self.seen.text_bytes += self._passed_on
            # What follows in this line must not be taken for the beginning of one.
            self._line[:] = b" "
            self._passed_on = 1
        return held

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
            self.seen.finished = self.seen.finished or self._ends_with_done
            return False
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(content, dict):
            return False
        self._note(self.seen, content)
        return content.get("choices") == [] and isinstance(content.get("usage"), dict)
