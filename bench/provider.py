"""A provider that answers at once, so that a gateway's own cost is all that is seen.

``python3 provider.py PORT EVENTS PAUSE`` serves chat completions on 127.0.0.1; a stream has so many events, with pauses
of so many seconds. ``GET /stats`` tells how many requests came, and how many of them without the provider key.
"""

from __future__ import annotations

import asyncio
import json
import sys

KEY = "sk-bench-provider"
# Requests a minute of the workspace whose limit is put to the test.
LIMITED = 60
_HEAD = {"id": "chatcmpl-bench", "created": 1_790_000_000, "model": "bench-model"}
_CHAT = json.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello! " * 40}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 21, "completion_tokens": 42, "total_tokens": 63},
    }
).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_CHAT) + _CHAT
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = json.dumps(
    {
        **_HEAD,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "Hello! "}, "finish_reason": None}],
    }
).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Provider(asyncio.Protocol):
    """One connection."""

    events, pause = 50, 0.1
    served = without_key = 0

    def __init__(self) -> None:
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head = self._waiting[:end]
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(self._waiting) < end + 4 + length:
                return
            body = self._waiting[end + 4 : end + 4 + length]
            self._waiting = self._waiting[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /stats"):
            told = b'{"served": %d, "without_key": %d}' % (Provider.served, Provider.without_key)
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
            return
        Provider.served += 1
        if f"Bearer {KEY}".encode() not in head:
            Provider.without_key += 1
        if b'"stream":true' not in body.replace(b" ", b""):
            self._transport.write(_WHOLE)
            return
        self._transport.write(_STREAM + _chunk(b"data: " + _EVENT + b"\n\n"))
        self._later(1)

    def _later(self, number: int) -> None:
        asyncio.get_running_loop().call_later(Provider.pause, self._next, number)

    def _next(self, number: int) -> None:
        if self._transport.is_closing():
            return
        if number < Provider.events:
            self._transport.write(_chunk(b"data: " + _EVENT + b"\n\n"))
            self._later(number + 1)
        else:
            self._transport.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main() -> None:
    """Serve until killed."""
    port, Provider.events, Provider.pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
