"""Metrics of a serving portal: one sum over its workers, whichever of them is asked, and whatever becomes of them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psycopg

from tests.neighbours.fake_provider import OPENAI_KEY, FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.neighbours.small_disk import small_disk
from tests.portal.calls import CHAT, HELLO, PASSWORD, call, hammer
from tests.portal.test_first_start import workers_of
from tests.services.test_metrics import numbers_in

ANSWERED = 'arka_requests_total{route="/v1/chat/completions",status="2xx"}'
TIMED = 'arka_request_seconds_count{route="/v1/chat/completions"}'
REFUSED = 'arka_limiter_refusals_total{area="v1"}'


def numbers(portal: Portal) -> dict[str, float]:
    status, headers, text = call(portal.port, None, path="/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return numbers_in(text.decode())


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
        killed = workers_of(portal)[0]
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: killed not in (now := workers_of(portal)) and len(now) == 2, 20)
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


def test_a_portal_whose_metrics_find_no_room_starts_and_serves_and_says_so_once_for_each_worker(tmp_path: Path) -> None:
    settings = {"ARKA_DEMO": "0", "ARKA_INSTANCE_PATH": str(tmp_path), "ARKA_LOG_FORMAT": "json"}
    with small_disk(tmp_path / "metrics", kilobytes=8), running_portal(settings, workers=2) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "agency")
        key = portal.command("key", "create", "--workspace", "alice", "--name", "load", "--test").stdout.strip()
        workers = workers_of(portal)
        assert hammer(portal.port, key, requests=60, threads=6) == {200: 60}
        for path in (
            "/v1/me",
            "/v1/models",
            "/v1/usage",
            "/v1/keys",
            "/v1/billing",
            "/sign-in",
            "/metrics",
            "/nowhere",
        ):
            assert call(portal.port, key, path=path)[0] < 500
        assert workers_of(portal) == workers
        assert portal.stderr().count("metrics are counted in the memory of this process") == 2


def test_breakers_and_connections_in_use_are_told_over_all_workers(
    postgres_url: str, empty_redis_url: str, provider: FakeProvider
) -> None:
    settings = {
        "ARKA_DEMO": "0",
        "ARKA_DATABASE_URL": postgres_url,
        "ARKA_RATELIMIT_STORAGE_URI": empty_redis_url,
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_PROVIDER_RETRIES": "0",
        "ARKA_BREAKER_FAILURES": "2",
        "ARKA_BREAKER_SECONDS": "8",
    }
    with running_portal(settings, workers=2) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "agency")
        portal.command("provider", "set", "--workspace", "alice", "openai", input=OPENAI_KEY)
        key = portal.command("key", "create", "--workspace", "alice", "--name", "x").stdout.strip()

        def told(series: str) -> float:
            return numbers(portal).get(series, 0.0)

        def breakers_are(state: str, number: int) -> bool:
            call(portal.port, key, "POST", CHAT, HELLO)
            return told(f'arka_breakers{{state="{state}"}}') == number

        provider.fault = "500"
        assert wait_until(lambda: breakers_are("open", 2), 15), "each worker has its own"
        provider.fault = None
        assert wait_until(lambda: breakers_are("open", 0) and breakers_are("half_open", 0), 30)

        in_use = 'arka_database_connections{pool="v1"}'
        with psycopg.connect(postgres_url) as connection:
            connection.execute("LOCK TABLE api_key IN ACCESS EXCLUSIVE MODE")
            waiting = [threading.Thread(target=call, args=(portal.port, key)) for _ in range(4)]
            for thread in waiting:
                thread.start()
            assert wait_until(lambda: told(in_use) >= 4, 4.5)
        for thread in waiting:
            thread.join(20)
        assert wait_until(lambda: told(in_use) == 0, 10)
