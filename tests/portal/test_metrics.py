"""Metrics of a serving portal: one sum over its workers, whichever of them is asked, and whatever becomes of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.portal.calls import CHAT, HELLO, PASSWORD, call, hammer
from tests.services.test_metrics import numbers_in

ANSWERED = 'arka_requests_total{route="/v1/chat/completions",status="2xx"}'
TIMED = 'arka_request_seconds_count{route="/v1/chat/completions"}'
REFUSED = 'arka_limiter_refusals_total{area="v1"}'


def numbers(portal: Portal) -> dict[str, float]:
    status, headers, text = call(portal.port, None, path="/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return numbers_in(text.decode())


def workers_of(pid: int) -> list[int]:
    """The worker processes: the grandchildren of the command."""
    children = {
        int(path.name): int((path / "stat").read_text().rpartition(")")[2].split()[1])
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and (path / "stat").exists()
    }
    servers = [child for child, parent in children.items() if parent == pid]
    return [child for child, parent in children.items() if parent in servers]


def test_metrics_are_one_sum_over_all_workers_also_after_one_was_killed() -> None:
    with running_portal({"ARKA_DEMO": "0"}, workers=2) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "100")
        key = portal.command("key", "create", "--workspace", "alice", "--name", "load", "--test").stdout.strip()
        assert hammer(portal.port, key, requests=120, threads=6) == {200: 100, 429: 20}
        for _ in range(6):
            found = numbers(portal)
            assert (found[ANSWERED], found[TIMED], found[REFUSED]) == (100, 120, 20)
            assert found["arka_processes"] == 2
        killed = workers_of(portal.pid)[0]
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: killed not in (now := workers_of(portal.pid)) and len(now) == 2, 20)
        assert wait_until(lambda: call(portal.port, None, path="/healthz")[0] == 200, 10)
        assert wait_until(lambda: numbers(portal)["arka_processes"] == 2, 10)
        found = numbers(portal)
        assert (found[ANSWERED], found[TIMED], found[REFUSED]) == (100, 120, 20)
        status, _, streamed = call(portal.port, key, "POST", CHAT, {**HELLO, "stream": True})
        assert status == 429 or streamed.endswith(b"data: [DONE]\n\n")
        assert numbers(portal).get("arka_open_streams", 0) == 0
        assert len(list((portal.instance_path / "metrics").iterdir())) == 2
        portal.stop()
        portal.start()
        assert ANSWERED not in numbers(portal)
