"""A database that is away when a stream ends: what the call came to is not lost, and counts once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from extensions import db
from models import ServerProcess, SpendingCounter, SpendingHold, UsageRecord
from models.base import now, transaction
from services import keys, metering, metrics, prices, server_processes, settling, spending
from services.restrictions import Restrictions
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, bearer
from tests.services.test_metrics import numbers_in

pytestmark = pytest.mark.waits

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, world!"}], "stream": True}
USD = 1_000_000_000

Away = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture
def environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("models.sqlite.BUSY_TIMEOUT_SECONDS", 1)
    return environment


@pytest.fixture
def away(request: pytest.FixtureRequest, app: Flask, tmp_path: Path, database_url: str) -> Away:
    """Take the database away for the length of a ``with`` block: a lock that lasts, or a server that is down."""
    server = None if database_url.startswith("sqlite") else request.getfixturevalue("postgres")

    @contextlib.contextmanager
    def taken_away() -> Iterator[None]:
        db.session.remove()
        if server is not None:
            with server.outage():
                yield
            db.engine.dispose()
            return
        other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()

    return taken_away


@pytest.fixture(params=[USD, None], ids=["with a limit", "without one"])
def headers(request: pytest.FixtureRequest, alice: Person) -> dict[str, str]:
    """A live key, with a spending limit or without."""
    minted = keys.mint(
        alice.workspace,
        actor=alice.actor,
        name="streams",
        kind="secret",
        environment="live",
        restrictions=Restrictions(monthly_limit_nano_usd=request.param),
    )
    return bearer(minted.secret)


@pytest.fixture
def connected(connect: Callable[[str, str], None], provider: FakeProvider) -> FakeProvider:
    connect("openai", provider.good_key)
    prices.load()
    return provider


def the_row() -> UsageRecord:
    db.session.rollback()
    return db.session.query(UsageRecord).order_by(UsageRecord.id.desc()).first()  # type: ignore[return-value]


def spent_and_held() -> list[tuple[int, int]]:
    db.session.rollback()
    return [(row.spent_nano_usd, row.held_nano_usd) for row in db.session.query(SpendingCounter)]


def waiting() -> float:
    return numbers_in(metrics.text())["arka_unsettled_streams"]


def check_settled(headers: dict[str, str], code: str) -> None:
    row = the_row()
    assert row is not None
    assert (row.status, row.code, row.input_tokens is not None) == (200, code, True)
    assert row.ended_at is not None
    assert row.cost_nano_usd
    assert db.session.query(SpendingHold).count() == 0
    counters = spent_and_held()
    assert counters == [(row.cost_nano_usd, 0)] * len(counters)
    assert waiting() == 0


def test_the_end_of_a_stream_whose_caller_hung_up_is_written_when_the_database_is_back(
    app: Flask, connected: FakeProvider, headers: dict[str, str], away: Away
) -> None:
    connected.event_delay_seconds = 0.05
    response = app.test_client().post(CHAT, headers=headers, json=HELLO, buffered=False)
    next(iter(response.iter_encoded()))
    with away():
        response.close()
        ended_by = now()
        assert waiting() == 1
        settling.settle_waiting()
        assert waiting() == 1
    limited = bool(spent_and_held())
    assert the_row().ended_at is None
    # Nobody else takes it for abandoned: what it holds is there until its true cost is.
    metering.complete_orphans()
    spending.release_abandoned()
    assert the_row().ended_at is None
    assert (db.session.query(SpendingHold).count() == 1) == limited
    for _ in range(2):
        settling.settle_waiting()
        check_settled(headers, "caller_hung_up")
    assert the_row().ended_at < ended_by


def test_the_end_of_a_stream_that_was_read_is_told_to_be_none_and_written_later(
    app: Flask, connected: FakeProvider, headers: dict[str, str], away: Away
) -> None:
    connected.event_delay_seconds = 0.05
    response = app.test_client().post(CHAT, headers=headers, json=HELLO, buffered=False)
    chunks = iter(response.iter_encoded())
    next(chunks)
    with away():
        rest = b"".join(chunks)
        response.close()
    assert b"[DONE]" not in rest
    assert b"service_unavailable" in rest
    settling.settle_waiting()
    check_settled(headers, "service_unavailable")


def test_what_another_process_took_for_dead_still_counts_once(
    app: Flask, connected: FakeProvider, headers: dict[str, str], away: Away
) -> None:
    connected.event_delay_seconds = 0.05
    server_processes.beat()
    response = app.test_client().post(CHAT, headers=headers, json=HELLO, buffered=False)
    next(iter(response.iter_encoded()))
    with away():
        response.close()
    with transaction() as session:
        session.query(ServerProcess).update({"alive_until": now().replace(year=2020)})
    metering.complete_orphans()
    assert the_row().code == "portal_stopped"
    settling.settle_waiting()
    check_settled(headers, "caller_hung_up")


def test_only_so_many_ends_wait(
    app: Flask, connected: FakeProvider, headers: dict[str, str], away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "MOST_WAITING", 1)
    connected.event_delay_seconds = 0.05
    responses = [app.test_client().post(CHAT, headers=headers, json=HELLO, buffered=False) for _ in range(2)]
    for response in responses:
        next(iter(response.iter_encoded()))
    with away():
        for response in responses:
            response.close()
        assert waiting() == 1
    settling.settle_waiting()
    spending.release_abandoned()
    db.session.rollback()
    ended = [row.ended_at is not None for row in db.session.query(UsageRecord).order_by(UsageRecord.id)]
    assert ended == [True, False]
    assert db.session.query(SpendingHold).count() == 0
