"""Server-sent events as the chat interface uses them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

CONTENT_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
_LONGEST_HELD_BYTES = 64 * 1024
_LONGEST_READ_BYTES = 1_000_000


def event(data: Mapping[str, Any]) -> bytes:
    """Return one event that carries ``data`` as JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class StreamReader:
    """Reads along while bytes are passed on unchanged: finds the usage, and whether the stream came to its end.

    Only whole lines are passed on, so that a stream that breaks off in the middle of one can still be ended by an
    event of ours. A line longer than 64 KiB is passed on in pieces; one longer than a megabyte is not read for usage.
    """

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}
        self.finished = False
        self._line = bytearray()
        self._passed_on = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes, cut anywhere, and return what may be passed on now; it may be nothing."""
        end = chunk.rfind(b"\n") + 1
        ready = b""
        if end:
            lines = bytes(self._line) + chunk[:end]
            ready = lines[self._passed_on :]
            self._read(lines)
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
            self._line.clear()
            self._passed_on = 0
        return held

    def _read(self, lines: bytes) -> None:
        # Most chunks hold neither, and a search costs less than cutting them into lines.
        if b"[DONE]" not in lines and b'"usage"' not in lines:
            return
        for line in lines.splitlines():
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]" and data != line:
                self.finished = True
            elif b'"usage"' in data and data != line:
                self._read_usage(data)

    def _read_usage(self, data: bytes) -> None:
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        usage = content.get("usage") if isinstance(content, dict) else None
        if isinstance(usage, dict):
            self.usage = usage
