"""Server-sent events as the chat interface uses them (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

CONTENT_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
_LONGEST_LINE_BYTES = 1_000_000


def event(data: Mapping[str, Any]) -> bytes:
    """Return one event that carries ``data`` as JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class StreamReader:
    """Reads along while bytes are passed on untouched: finds the usage and whether the stream came to its end."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}
        self.finished = False
        self._line = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            self._collect(part)
            if not self._too_long:
                self._read(bytes(self._line))
            self._line.clear()
            self._too_long = False
        self._collect(rest)

    def _collect(self, part: bytes) -> None:
        # A line of many megabytes is no usage report; what is not kept costs no memory.
        if len(self._line) + len(part) > _LONGEST_LINE_BYTES:
            self._too_long = True
            self._line.clear()
        if not self._too_long:
            self._line += part

    def _read(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.finished = True
        elif b'"usage"' in data:
            self._read_usage(data)

    def _read_usage(self, data: bytes) -> None:
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        usage = content.get("usage") if isinstance(content, dict) else None
        if isinstance(usage, dict):
            self.usage = usage
