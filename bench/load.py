"""A load generator of the standard library alone: many connections, one thread.

``python3 load.py '{"mode": ..., "port": ..., ...}'`` prints what it saw as JSON. Modes: ``closed`` keeps ``number``
requests in flight for ``seconds``; ``rate`` sends ``number`` a second, and a latency counts from the moment a request
was due; ``streams`` opens ``number`` streams, a quarter of them each second, and reads them to their end.
"""

from __future__ import annotations

import asyncio
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

_PATIENCE_SECONDS = 60


class Seen:
    """What came back."""

    def __init__(self) -> None:
        self.good = self.refused = self.broken = self.events = self.complete = 0
        self.latencies: list[float] = []
        self.firsts: list[float] = []


class Caller(asyncio.Protocol):
    """One connection that carries one request after another."""

    def __init__(self, request: bytes, seen: Seen, free: Callable[[Caller], None]) -> None:
        self._request, self._seen, self._free = request, seen, free
        self._waiting = b""
        self._asked = 0.0
        self._length = -1
        self._first = True
        self.closed = False
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, due: float) -> None:
        self._asked, self._waiting, self._length, self._first = due, b"", -1, True
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        if self._length < 0 and not self._read_head():
            return
        if self._length == 0:
            self._read_stream()
        elif len(self._waiting) >= self._length:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._asked:
            self._seen.broken += 1
        self.over.set()

    def _read_head(self) -> bool:
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._waiting[:end].lower()
        self._good = head.startswith(b"http/1.1 200")
        place = head.find(b"content-length:")
        # Nothing we call sends an empty body with a length; 0 stands for chunks.
        size = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        self._length = end + 4 + size if size else 0
        if not self._length:
            self._waiting = self._waiting[end + 4 :]
        return True

    def _read_stream(self) -> None:
        found = self._waiting.count(b"data: ")
        if found and self._first:
            self._first = False
            self._seen.firsts.append(time.perf_counter() - self._asked)
        self._seen.events += found
        if b"data: [DONE]" in self._waiting:
            self._seen.complete += 1
        if self._waiting.endswith(b"\r\n0\r\n\r\n") or self._waiting == b"0\r\n\r\n":
            self._end()
        else:
            # Enough for a mark that is cut in two.
            self._waiting = self._waiting[-8:] if not self._waiting.endswith(b"\n") else b""

    def _end(self) -> None:
        self._seen.latencies.append(time.perf_counter() - self._asked)
        self._asked = 0.0
        if self._good:
            self._seen.good += 1
        else:
            self._seen.refused += 1
        self._free(self)


def request_of(port: int, headers: dict[str, str], body: bytes) -> bytes:
    """Return the bytes of a chat request."""
    head = {
        "Host": f"127.0.0.1:{port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = ["POST /v1/chat/completions HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def run(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order."""
    seen = Seen()
    request = request_of(order["port"], order["headers"], order["body"].encode())
    began = time.perf_counter()
    await {"closed": _closed, "rate": _rate, "streams": _streams}[order["mode"]](order, request, seen)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "good": seen.good,
        "refused": seen.refused,
        "broken": seen.broken,
        "per_second": seen.good / seconds,
        "p50_ms": _quantile(seen.latencies, 0.5),
        "p99_ms": _quantile(seen.latencies, 0.99),
        "events": seen.events,
        "complete": seen.complete,
        "first_p50_ms": _quantile(seen.firsts, 0.5),
        "first_p99_ms": _quantile(seen.firsts, 0.99),
        "own_cpu": (used.ru_utime + used.ru_stime) / seconds,
    }


async def _open(order: dict[str, Any], request: bytes, seen: Seen, free: Callable[[Caller], None]) -> Caller:
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(lambda: Caller(request, seen, free), "127.0.0.1", order["port"])
    return caller


async def _closed(order: dict[str, Any], request: bytes, seen: Seen) -> None:
    until = time.perf_counter() + order["seconds"]

    def again(caller: Caller) -> None:
        now = time.perf_counter()
        if now < until:
            caller.ask(now)
        else:
            caller.over.set()

    callers = [await _open(order, request, seen, again) for _ in range(order["number"])]
    for caller in callers:
        caller.ask(time.perf_counter())
    await _wait_for(callers, order["seconds"] + _PATIENCE_SECONDS, seen)


async def _rate(order: dict[str, Any], request: bytes, seen: Seen) -> None:
    idle: list[Caller] = []
    began = time.perf_counter()
    callers = []
    for number in range(int(order["number"] * order["seconds"])):
        due = began + number / order["number"]
        if due > time.perf_counter():
            await asyncio.sleep(due - time.perf_counter())
        while idle and idle[-1].closed:
            idle.pop()
        if idle:
            caller = idle.pop()
        else:
            caller = await _open(order, request, seen, idle.append)
            callers.append(caller)
        caller.ask(due)
    until = time.perf_counter() + _PATIENCE_SECONDS
    while len(idle) < sum(not caller.closed for caller in callers) and time.perf_counter() < until:
        await asyncio.sleep(0.01)


async def _streams(order: dict[str, Any], request: bytes, seen: Seen) -> None:
    def over(caller: Caller) -> None:
        caller.over.set()

    callers = []
    began = time.perf_counter()
    for number in range(order["number"]):
        due = began + 4 * number / order["number"] * min(1.0, order["number"] / 200)
        if due > time.perf_counter():
            await asyncio.sleep(due - time.perf_counter())
        caller = await _open(order, request, seen, over)
        caller.ask(time.perf_counter())
        callers.append(caller)
    await _wait_for(callers, order["seconds"] + _PATIENCE_SECONDS, seen)


async def _wait_for(callers: list[Caller], seconds: float, seen: Seen) -> None:
    waits = [asyncio.ensure_future(caller.over.wait()) for caller in callers]
    _, late = await asyncio.wait(waits, timeout=seconds)
    seen.broken += len(late)
    for caller in callers:
        # What it says when it is closed now is no failure.
        caller._asked = 0.0
        caller.transport.close()


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000 if values else math.nan


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))))
