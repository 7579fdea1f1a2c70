"""Spending limits over worker processes: never more than the limit, and nothing stays held."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from config import load
from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.portal.calls import CHAT, HELLO, call
from tests.portal.test_first_start import workers_of

BOUNDED: dict[str, Any] = {**HELLO, "max_tokens": 20}
NewKey = Callable[..., str]


@pytest.fixture
def portal(storage: dict[str, str], provider: FakeProvider) -> Iterator[Portal]:
    """A portal with two worker processes in front of the fake provider."""
    settings = {
        **storage,
        "ARKA_DEMO": "0",
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_PROVIDER_READ_SECONDS": "60",
    }
    with running_portal(settings, workers=2) as portal:
        yield portal


@pytest.fixture
def live_key(portal: Portal, provider: FakeProvider, new_key: NewKey) -> NewKey:
    """Make live keys of a workspace that is connected to the fake provider."""
    connected = portal.command("provider", "set", "--workspace", "alice", "openai", input=provider.good_key + "\n")
    assert connected.returncode == 0, connected.stderr
    return new_key


def sums(portal: Portal, statement: str) -> list[Any]:
    engine = create_engine(load(portal.environment).database_url)
    with engine.connect() as connection:
        found = connection.execute(text(statement)).all()
    engine.dispose()
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


def all_at_once(portal: Portal, key: str, requests: int) -> Counter[Any]:
    """Send requests that are all in progress at the same time, and count statuses and codes."""
    outcomes: Counter[Any] = Counter()
    lock, ready = threading.Lock(), threading.Barrier(requests)

    def work() -> None:
        ready.wait(60)
        status, _, answer = call(portal.port, key, "POST", CHAT, BOUNDED)
        with lock:
            outcomes[status if status == 200 else (status, answer["error"]["code"])] += 1

    threads = [threading.Thread(target=work) for _ in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return outcomes


def test_of_200_calls_at_once_no_more_pass_than_the_limit_is_worth(
    portal: Portal, live_key: NewKey, provider: FakeProvider
) -> None:
    key = live_key("spender")
    assert call(portal.port, key, "POST", CHAT, BOUNDED)[0] == 200
    (cost,) = sums(portal, "SELECT cost_nano_usd FROM usage_record WHERE status = 200")
    limit = 51 * cost
    usd = f"{limit // 10**9}.{limit % 10**9:09}"
    assert portal.command("workspace", "set-limits", "alice", "--daily", usd, "--monthly", usd).returncode == 0
    # Long enough for all of them to stand before the limit together.
    provider.fault = "slow:0.5"
    outcomes = all_at_once(portal, key, 200)
    provider.fault = None
    refused = (402, "spending_limit_reached")
    assert set(outcomes) == {200, refused}
    assert outcomes.total() == 200
    # What each may cost is held, which is more than it costs, so fewer may pass at once; then one after another.
    assert 5 <= outcomes[200] <= 50
    passed = outcomes[200]
    while call(portal.port, key, "POST", CHAT, BOUNDED)[0] == 200:
        passed += 1
    assert 40 <= passed <= 50
    spent = sums(portal, "SELECT sum(cost_nano_usd) FROM usage_record")[0]
    assert spent == (passed + 1) * cost <= limit
    counters = sums(portal, "SELECT spent_nano_usd, held_nano_usd FROM spending_counter")
    assert counters == [(spent, 0)] * 2
    assert sums(portal, "SELECT count(*) FROM spending_hold") == [0]


@pytest.mark.waits
def test_what_killed_workers_held_is_released_and_their_calls_are_completed(
    portal: Portal, live_key: NewKey, provider: FakeProvider
) -> None:
    key = live_key("spender", "--monthly-limit", "5.00")

    def begin(fault: str, *, streamed: bool) -> None:
        def work() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                call(portal.port, key, "POST", CHAT, {**BOUNDED, "stream": streamed})

        provider.fault = fault
        threading.Thread(target=work, daemon=True).start()

    holds = "SELECT count(*) FROM spending_hold"
    opened = "SELECT count(*) FROM usage_record WHERE ended_at IS NULL"
    begin("stall:1", streamed=True)
    assert wait_until(lambda: sums(portal, opened) == [1], 10, 0.1)
    begin("hang", streamed=False)
    assert wait_until(lambda: sums(portal, holds) == [2], 10, 0.1)
    # Every worker has given a sign of life.
    assert wait_until(lambda: sums(portal, "SELECT count(*) FROM server_process") == [2], 10, 0.1)
    for pid in workers_of(portal):
        os.kill(pid, signal.SIGKILL)
    provider.fault = None
    # The hold of a dead process goes on to count until it is released.
    assert sums(portal, holds) == [2]
    assert wait_until(lambda: (sums(portal, holds), sums(portal, opened)) == ([0], [0]), 45, 0.3)
    assert sums(portal, "SELECT held_nano_usd FROM spending_counter") == [0]
    assert sums(portal, "SELECT code FROM usage_record WHERE streamed") == ["portal_stopped"]
    assert call(portal.port, key, "POST", CHAT, BOUNDED)[0] == 200
