"""Calls to a running portal."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections import Counter
from typing import Any

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, world!"}]}
PASSWORD = "correct horse battery staple"


def call(
    port: int, key: str | None, method: str = "GET", path: str = "/v1/models", body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, Any]:
    """Send one request on a connection of its own; return status, headers and the JSON of the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, {**sent, **headers})
        response = connection.getresponse()
        content = response.read()
        return response.status, response.headers, json.loads(content) if content.startswith(b"{") else content
    finally:
        connection.close()


def hammer(port: int, key: str, requests: int, threads: int) -> Counter[int]:
    """Send that many chat requests from that many threads and count the statuses."""
    statuses: Counter[int] = Counter()
    numbers, lock = itertools.count(), threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while next(numbers) < requests:
            connection.request("POST", CHAT, json.dumps(HELLO), {"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            with lock:
                statuses[response.status] += 1
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    return statuses
