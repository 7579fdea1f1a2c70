"""What has to hold for the figures to count: revocation, durability, exact limits, the provider's key."""

from __future__ import annotations

import concurrent.futures
import http.client
import subprocess
import threading
import time
from pathlib import Path

from machine import Program
from provider import LIMITED

BODY = b'{"model":"bench-model","messages":[{"role":"user","content":"Say hello."}]}'
_CALLERS = 16


def call(port: int, key: str, connection: http.client.HTTPConnection | None = None) -> int:
    """Make one call and return its status, 0 when no whole answer came."""
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        own.request(
            "POST", "/v1/chat/completions", BODY, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        )
        answer = own.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        own.close()
        return 0
    finally:
        if connection is None:
            own.close()


def accepted_after_revocation(
    port: int, key: dict[str, str], disable: list[str], environment: dict[str, str], folder: Path
) -> int:
    """Disable a key under load, and return how many calls that were sent after the command ended got in."""
    seen: list[tuple[float, int]] = []
    over = threading.Event()

    def caller() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not over.is_set():
            sent = time.monotonic()
            seen.append((sent, call(port, key["secret"], connection)))

    threads = [threading.Thread(target=caller) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    subprocess.run([*disable, key["id"]], env=environment, cwd=folder, check=True, capture_output=True)
    ended = time.monotonic()
    time.sleep(0.5)
    over.set()
    for thread in threads:
        thread.join()
    if not any(status == 200 for sent, status in seen if sent < ended):
        return -1
    return sum(status == 200 for sent, status in seen if sent > ended)


def replies_until_killed(port: int, key: dict[str, str], program: Program, seconds: float) -> int:
    """Kill the whole portal under load; return how many answers had come."""
    replies = [0] * _CALLERS
    over = threading.Event()

    def caller(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        while not over.is_set():
            replies[number] += call(port, key["secret"], connection) == 200

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(_CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    program.kill()
    over.set()
    for thread in threads:
        thread.join()
    return sum(replies)


def allowed_at_once(port: int, key: dict[str, str]) -> int:
    """Send three times what the limit allows at once, and return how many got in."""
    with concurrent.futures.ThreadPoolExecutor(_CALLERS) as pool:
        statuses = list(pool.map(lambda _: call(port, key["secret"]), range(3 * LIMITED)))
    return statuses.count(200)
