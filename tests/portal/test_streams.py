"""Many streams at once, on the server as it comes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import create_engine, text

from config import load
from tests.neighbours import processes
from tests.neighbours.fake_provider import OPENAI_KEY
from tests.neighbours.portal import ROOT, Portal, running_portal
from tests.portal.calls import PASSWORD

STREAMS = 500
SECONDS = 5.0
EVENTS = 10


@dataclass
class Seen:
    """What one caller saw: seconds from its request to each piece, and the bytes."""

    began: float
    at: list[float] = field(default_factory=list)
    content: bytes = b""

    def sent_at(self) -> list[float]:
        """When the provider sent the events, by the clock of ``began``."""
        return [float(moment) for moment in re.findall(rb'"sent_at": ?([0-9.]+)', self.content)]


@pytest.fixture
def slow_provider() -> Iterator[str]:
    """A provider in a process of its own, so that it does not share ours with 500 callers; its address."""
    delay = ["--event-delay", str(SECONDS / EVENTS), "--tell-times"]
    command = [sys.executable, "-m", "tests.neighbours.fake_provider", "--key", OPENAI_KEY, *delay]
    process = processes.start(
        command, output=subprocess.PIPE, errors=subprocess.DEVNULL, environment=os.environ, folder=ROOT
    )
    assert process.stdout is not None
    yield process.stdout.readline().decode().strip()
    processes.stop(process, signal.SIGTERM)
    process.stdout.close()


@pytest.fixture
def portal(slow_provider: str) -> Iterator[Portal]:
    with running_portal({"ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": f"{slow_provider}/v1"}, workers=2) as portal:
        yield portal


@pytest.fixture
def key(portal: Portal) -> str:
    portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
    portal.command("workspace", "set-plan", "alice", "agency")
    connected = portal.command("provider", "set", "--workspace", "alice", "openai", input=OPENAI_KEY)
    assert connected.returncode == 0, connected.stderr
    return portal.command("key", "create", "--workspace", "alice", "--name", "streams").stdout.strip()


@pytest.mark.alone
def test_500_streams_of_5_seconds_complete_and_nothing_is_held_back(portal: Portal, key: str) -> None:
    seen = in_a_thread(lambda: asyncio.run(open_all(portal.port, key)))

    assert [one.content[-200:] for one in seen if not one.content.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")] == []
    # A caller has the first event before the provider has sent the last.
    held_back = [one for one in seen if len(one.sent_at()) < 2 or one.began + one.at[0] >= max(one.sent_at())]
    assert len(held_back) == 0
    # The first event is the provider's first, not the end of a buffer: most of the stream comes after it.
    spread = [one.at[-1] - one.at[0] for one in seen]
    assert min(spread) > SECONDS / 2, f"the shortest stream came within {min(spread):.1f} s"
    assert len({len(one.at) > EVENTS / 2 for one in seen}) == 1
    first = sorted(one.at[0] - SECONDS / EVENTS for one in seen)
    print(f"first event, beyond the provider's own wait: p50 {first[250]:.2f} s, p99 {first[495]:.2f} s")
    assert complete_rows(portal) == STREAMS


async def open_all(port: int, key: str) -> list[Seen]:
    return list(await asyncio.gather(*(read_stream(port, key) for _ in range(STREAMS))))


async def read_stream(port: int, key: str) -> Seen:
    message = {"role": "user", "content": "one two"}
    body = json.dumps({"model": "gpt-4o", "stream": True, "messages": [message]}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    seen = Seen(began=time.monotonic())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    while piece := await reader.read(65_536):
        if b"data:" in piece:
            seen.at.append(time.monotonic() - seen.began)
        seen.content += piece
    writer.close()
    return seen


def in_a_thread(work: Callable[[], list[Seen]]) -> list[Seen]:
    """Run where no event loop of a browser test is running."""
    found: list[Seen] = []
    thread = threading.Thread(target=lambda: found.extend(work()))
    thread.start()
    thread.join(120)
    assert len(found) == STREAMS
    return found


def complete_rows(portal: Portal) -> int:
    engine = create_engine(load(portal.environment).database_url)
    with engine.connect() as connection:
        query = "SELECT count(*) FROM usage_record WHERE streamed AND ended_at IS NOT NULL AND code IS NULL"
        count = connection.execute(text(query)).scalar_one()
    engine.dispose()
    return int(count)
