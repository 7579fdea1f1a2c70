"""Spending limits: whatever calls do and however they end, the counters tell what the usage rows tell."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from extensions import db
from models import ApiKey, AuditEvent, ServerProcess, SpendingCounter, SpendingHold, UsageRecord
from models.base import now, transaction
from models.quick import DatabaseUnavailable, Quick
from services import keys, metering, server_processes, settling, spending
from services.errors import DatabaseAway, SpendingLimitReached, UnknownPrice
from services.gate import KeyFacts, Presented, judge
from services.metering import Call, Meter
from services.restrictions import Restrictions
from services.spending_counters import PERIODS, counter_period, period_end, period_start
from tests.people import Person

USD = 1_000_000_000
ROUTES = [("openai", "gpt-4o")]
# $10 for a million.
OUTPUT_TOKEN = 10_000
DEAD = "dead"

Facts = Callable[..., KeyFacts]
numbers = itertools.count()


@pytest.fixture(autouse=True)
def noon() -> Iterator[None]:
    """The middle of a day: no period ends while a test goes on."""
    with time_machine.travel((now() + timedelta(days=1)).replace(hour=12), tick=True):
        yield


@pytest.fixture
def facts(alice: Person) -> Facts:
    """Make a live key in alice's workspace and return what the gate knows of it."""

    def make(**limits: Any) -> KeyFacts:
        minted = keys.mint(
            alice.workspace,
            actor=alice.actor,
            name=f"key {next(numbers)}",
            kind="secret",
            environment=limits.pop("environment", "live"),
            restrictions=Restrictions(**limits),
        )
        return look(minted.secret.reveal())

    return make


def look(secret: str) -> KeyFacts:
    shown = Presented(f"Bearer {secret}", None, "127.0.0.1", encrypted=True, from_browser=False)
    key = judge(shown, None, cost=0).key
    assert key is not None
    return key


def limit_workspace(person: Person, **limits: Any) -> None:
    amounts = {"daily_nano_usd": None, "monthly_nano_usd": None, "allow_unknown_price": False, **limits}
    spending.set_limits(person.workspace, actor=person.actor, **amounts)


def call_of(key: KeyFacts, started_at: datetime | None = None) -> Call:
    call = Call(f"req_{next(numbers)}", key, "chat/completions", "127.0.0.1", None, started_at=started_at or now())
    call.model = call.provider_model = "gpt-4o"
    call.provider = "openai"
    return call


def finish(call: Call, output_tokens: int | None, *, streamed: bool = False) -> None:
    call.input_tokens, call.output_tokens = 0, output_tokens
    meter = Meter()
    if streamed:
        meter.settle(call, None)
    else:
        meter.record(call, 200, None)


def counters() -> dict[tuple[str, str], tuple[int, int]]:
    return {(row.owner_id, row.period): (row.spent_nano_usd, row.held_nano_usd) for row in rows_of(SpendingCounter)}


def rows_of(model: Any) -> list[Any]:
    # What was read before must not hide what was written since.
    db.session.rollback()
    return list(db.session.scalars(select(model)))


def counter(owner_id: str, period: str = "month", at: datetime | None = None) -> tuple[int, int]:
    return counters()[owner_id, counter_period(period, at or now())]


# ---- what a hold does


def test_without_a_limit_nothing_is_held_and_nothing_is_kept(app: Flask, facts: Facts) -> None:
    call = call_of(facts())
    spending.hold(call, ROUTES, input_tokens=10**9, output_tokens=10**9)
    finish(call, 5)
    assert call.hold is None
    assert (counters(), rows_of(SpendingHold)) == ({}, [])


def test_a_test_key_spends_nothing_under_any_limit(app: Flask, alice: Person, facts: Facts) -> None:
    limit_workspace(alice, monthly_nano_usd=0)
    call = call_of(facts(environment="test", monthly_limit_nano_usd=0))
    spending.hold(call, ROUTES, input_tokens=10, output_tokens=10)
    finish(call, 5)
    assert (call.hold, call.cost_nano_usd, call.price_version) == (None, 0, "simulator")


def test_a_hold_counts_in_every_limit_and_gives_way_to_the_cost(app: Flask, alice: Person, facts: Facts) -> None:
    limit_workspace(alice, daily_nano_usd=USD, monthly_nano_usd=2 * USD)
    key = facts(daily_limit_nano_usd=USD, monthly_limit_nano_usd=USD)
    key = key_again(key, alice)
    call = call_of(key)
    spending.hold(call, ROUTES, input_tokens=1000, output_tokens=100)
    most = 1000 * 2500 + 100 * OUTPUT_TOKEN
    assert call.hold == most
    assert set(counters().values()) == {(0, most)}
    assert len(counters()) == 4
    finish(call, 7)
    assert set(counters().values()) == {(7 * OUTPUT_TOKEN, 0)}
    assert rows_of(SpendingHold) == []


def key_again(key: KeyFacts, person: Person) -> KeyFacts:
    """The facts as the next call would find them, after the workspace's limits changed."""
    workspace = person.workspace
    return key._replace(
        workspace_daily_limit_nano_usd=workspace.daily_limit_nano_usd,
        workspace_monthly_limit_nano_usd=workspace.monthly_limit_nano_usd,
        workspace_allow_unknown_price=workspace.allow_unknown_price,
    )


def test_a_stated_bound_has_to_fit_whole(app: Flask, facts: Facts) -> None:
    key = facts(monthly_limit_nano_usd=100 * OUTPUT_TOKEN)
    with pytest.raises(SpendingLimitReached) as refused:
        spending.hold(call_of(key), ROUTES, input_tokens=0, output_tokens=101)
    details = refused.value.details
    assert refused.value.status == 402
    assert (details["whose"], details["period"], details["limit_usd"]) == ("key", "month", "0.001")
    assert (details["spent_usd"], details["held_usd"], details["call_usd"]) == ("0.00", "0.00", "0.00101")
    assert "in_progress" not in details
    spending.hold(call_of(key), ROUTES, input_tokens=0, output_tokens=100)
    with pytest.raises(SpendingLimitReached) as refused:
        spending.hold(call_of(key), ROUTES, input_tokens=0, output_tokens=1)
    assert refused.value.details["in_progress"] is True
    assert "Only calls in progress stand in the way" in refused.value.message


def test_an_unbounded_call_holds_what_is_left_as_long_as_something_is(app: Flask, facts: Facts) -> None:
    key = facts(monthly_limit_nano_usd=5000 * OUTPUT_TOKEN)
    holds = []
    for _ in range(2):
        call = call_of(key)
        spending.hold(call, ROUTES, input_tokens=0, output_tokens=None)
        holds.append(call.hold)
    assert holds == [4096 * OUTPUT_TOKEN, 904 * OUTPUT_TOKEN]
    with pytest.raises(SpendingLimitReached):
        spending.hold(call_of(key), ROUTES, input_tokens=0, output_tokens=None)


def test_the_dearest_route_is_held(app: Flask, facts: Facts) -> None:
    call = call_of(facts(monthly_limit_nano_usd=USD))
    spending.hold(call, [("openai", "gpt-4o-mini"), ("openai", "gpt-4o")], input_tokens=0, output_tokens=10)
    assert call.hold == 10 * OUTPUT_TOKEN


@pytest.mark.parametrize("at_key", [True, False])
@pytest.mark.parametrize("at_workspace", [True, False])
def test_a_model_of_unknown_price_needs_the_leave_of_every_owner_of_a_limit(
    app: Flask, alice: Person, facts: Facts, at_key: bool, at_workspace: bool
) -> None:
    limit_workspace(alice, daily_nano_usd=USD, allow_unknown_price=at_workspace)
    key = facts(monthly_limit_nano_usd=USD, allow_unknown_price=at_key)
    call = call_of(key)
    if at_key and at_workspace:
        spending.hold(call, [("openai", "gpt-imaginary")], input_tokens=10, output_tokens=10)
        assert call.hold == 0
        return
    with pytest.raises(UnknownPrice) as refused:
        spending.hold(call, [("openai", "gpt-4o"), ("openai", "gpt-imaginary")], input_tokens=10, output_tokens=10)
    assert refused.value.details["model"] == "gpt-imaginary"
    assert refused.value.details["whose"] == ("key" if not at_key else "workspace")


def test_who_has_no_limit_need_not_allow_unknown_prices(app: Flask, facts: Facts) -> None:
    call = call_of(facts(monthly_limit_nano_usd=USD, allow_unknown_price=True))
    spending.hold(call, [("openai", "gpt-imaginary")], input_tokens=10, output_tokens=10)
    assert call.hold == 0


def test_an_unknown_cost_gives_the_hold_back(app: Flask, facts: Facts) -> None:
    key = facts(monthly_limit_nano_usd=USD)
    call = call_of(key)
    spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
    finish(call, None)
    assert counter(key.key_id) == (0, 0)
    assert rows_of(UsageRecord)[0].cost_nano_usd is None


# ---- periods


def test_a_call_counts_where_it_began_also_when_it_ends_in_another_day_and_month(app: Flask, facts: Facts) -> None:
    began = datetime(2026, 10, 31, 23, 59, 59, 900_000, tzinfo=UTC)
    key = facts(daily_limit_nano_usd=USD, monthly_limit_nano_usd=USD)
    call = call_of(key, began)
    spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
    finish(call, 10)
    assert counters() == {
        (key.key_id, "2026-10-31"): (10 * OUTPUT_TOKEN, 0),
        (key.key_id, "2026-10"): (10 * OUTPUT_TOKEN, 0),
    }


@pytest.mark.parametrize(
    ("at", "day_ends", "month_ends"),
    [
        ("2026-02-28T23:59:59", "2026-03-01", "2026-03-01"),
        ("2028-02-29T00:00:00", "2028-03-01", "2028-03-01"),
        ("2026-12-31T12:00:00", "2027-01-01", "2027-01-01"),
        ("2026-01-30T12:00:00", "2026-01-31", "2026-02-01"),
    ],
)
def test_days_and_months_end_at_midnight_utc(at: str, day_ends: str, month_ends: str) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    ends = [period_end(period, moment) for period in PERIODS]
    assert [f"{end:%Y-%m-%d}" for end in ends] == [day_ends, month_ends]
    assert all((end.hour, end.minute, end.second, end.utcoffset()) == (0, 0, 0, timedelta(0)) for end in ends)


def test_a_new_counter_is_made_from_the_rows_of_its_period_alone(app: Flask, alice: Person, facts: Facts) -> None:
    key, other = facts(), facts()
    today, first = now(), period_start("month", now())
    for at, used in [(today, key), (today, other), (first - timedelta(seconds=1), key)]:
        finish(call_of(used, at), 100)
    limit_workspace(alice, daily_nano_usd=USD, monthly_nano_usd=USD)
    keys.change(alice.workspace, key.key_id, actor=alice.actor, restrictions=Restrictions(monthly_limit_nano_usd=USD))
    standing = {(one.title, one.period): one.spent_nano_usd for one in spending.standing(alice.workspace)}
    assert standing == {
        ("alice", "day"): 200 * OUTPUT_TOKEN,
        ("alice", "month"): 200 * OUTPUT_TOKEN,
        (key.name, "month"): 100 * OUTPUT_TOKEN,
    }
    # Looking makes no counter; a call does, with the same figures.
    assert counters() == {}
    call = call_of(key_again(facts(), alice))
    spending.hold(call, ROUTES, input_tokens=0, output_tokens=1)
    assert counter(alice.workspace_id) == (200 * OUTPUT_TOKEN, OUTPUT_TOKEN)
    assert counter(alice.workspace_id, "day") == (200 * OUTPUT_TOKEN, OUTPUT_TOKEN)


# ---- limits that change


def test_a_limit_lifted_and_set_again_counts_what_was_spent_meanwhile(app: Flask, alice: Person, facts: Facts) -> None:
    limit_workspace(alice, monthly_nano_usd=USD)
    before = call_of(facts())
    spending.hold(before, ROUTES, input_tokens=0, output_tokens=10)
    limit_workspace(alice)
    finish(call_of(facts()), 100)
    limit_workspace(alice, monthly_nano_usd=USD)
    after = call_of(facts())
    spending.hold(after, ROUTES, input_tokens=0, output_tokens=1)
    assert counter(alice.workspace_id) == (100 * OUTPUT_TOKEN, 11 * OUTPUT_TOKEN)
    for call in (before, after):
        finish(call, 1)
    assert counter(alice.workspace_id) == (102 * OUTPUT_TOKEN, 0)


def test_a_call_that_began_before_the_limit_was_set_is_counted_soon(app: Flask, alice: Person, facts: Facts) -> None:
    early = call_of(facts())
    limit_workspace(alice, monthly_nano_usd=USD)
    late = call_of(facts())
    spending.hold(late, ROUTES, input_tokens=0, output_tokens=1)
    finish(early, 50)
    finish(late, 1)
    assert counter(alice.workspace_id) == (1 * OUTPUT_TOKEN, 0)
    spending.recount()
    assert counter(alice.workspace_id) == (51 * OUTPUT_TOKEN, 0)


def test_limits_are_told_in_the_audit_log(app: Flask, alice: Person) -> None:
    limit_workspace(alice, monthly_nano_usd=5 * USD)
    event = db.session.scalars(select(AuditEvent).order_by(AuditEvent.number.desc())).first()
    assert event is not None
    assert (event.action, event.details["monthly_limit_usd"]) == ("spending:limit", "5.00")


# ---- concurrency


def test_calls_at_once_never_hold_more_than_the_limit(app: Flask, alice: Person, facts: Facts) -> None:
    limit_workspace(alice, monthly_nano_usd=50 * OUTPUT_TOKEN)
    key = facts(daily_limit_nano_usd=USD)
    outcomes: list[str] = []

    def work() -> None:
        with app.app_context():
            for _ in range(10):
                call = call_of(key)
                try:
                    spending.hold(call, ROUTES, input_tokens=0, output_tokens=1)
                    outcomes.append("held")
                except SpendingLimitReached:
                    outcomes.append("refused")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (outcomes.count("held"), len(outcomes)) == (50, 80)
    assert counter(alice.workspace_id) == (0, 50 * OUTPUT_TOKEN)


# ---- processes that die


def kill(call: Call, since: timedelta = timedelta(seconds=1)) -> None:
    """Let the process that works on a call be one that has died, so long ago."""
    with transaction() as session:
        if session.get(ServerProcess, DEAD) is None:
            session.add(ServerProcess(id=DEAD, node="n", started_at=now(), alive_until=now() - since))
            session.flush()
        for model in (SpendingHold, UsageRecord):
            session.execute(update(model).where(model.request_id == call.request_id).values(process_id=DEAD))


@pytest.mark.parametrize("registered", [True, False])
def test_a_process_that_died_before_the_clock_was_set_back_is_dead(app: Flask, facts: Facts, registered: bool) -> None:
    key = facts(monthly_limit_nano_usd=USD)
    gone, living = call_of(key), call_of(key)
    ahead = timedelta(hours=1)
    for call in (gone, living):
        spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
        Meter().open(call, 200)
    server_processes.beat()
    if registered:
        kill(gone, since=-ahead)
    with transaction() as session:
        of_gone = {"process_id": DEAD}
        session.execute(
            update(UsageRecord)
            .where(UsageRecord.request_id == gone.request_id)
            .values(started_at=now() + ahead, **of_gone)
        )
        session.execute(
            update(SpendingHold)
            .where(SpendingHold.request_id == gone.request_id)
            .values(created_at=now() + ahead, **of_gone)
        )
    metering.complete_orphans()
    spending.clear_up()
    assert counter(key.key_id) == (0, 10 * OUTPUT_TOKEN)
    rows = {row.request_id: row for row in rows_of(UsageRecord)}
    assert rows[gone.request_id].code == "portal_stopped"
    assert rows[gone.request_id].ended_at is not None
    assert rows[living.request_id].ended_at is None


def test_what_a_dead_process_held_is_released_and_its_stream_completed(app: Flask, facts: Facts) -> None:
    key = facts(monthly_limit_nano_usd=USD)
    plain, streamed, living = call_of(key), call_of(key), call_of(key)
    for call in (plain, streamed, living):
        spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
    streamed.input_tokens = 1000
    Meter().open(streamed, 200)
    Meter().open(living, 200)
    server_processes.beat()
    for call in (plain, streamed):
        kill(call)
    metering.complete_orphans()
    spending.clear_up()
    assert counter(key.key_id) == (0, 10 * OUTPUT_TOKEN)
    rows = {row.request_id: row for row in rows_of(UsageRecord)}
    assert (rows[streamed.request_id].code, rows[streamed.request_id].estimated) == ("portal_stopped", True)
    assert rows[streamed.request_id].ended_at is not None
    # How much had gone out nobody knows.
    assert (rows[streamed.request_id].input_tokens, rows[streamed.request_id].cost_nano_usd) == (1000, None)
    assert rows[living.request_id].ended_at is None


def test_a_process_that_nobody_knows_yet_is_not_taken_for_dead(app: Flask, facts: Facts) -> None:
    key = facts(monthly_limit_nano_usd=USD)
    call = call_of(key)
    spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
    spending.clear_up()
    assert counter(key.key_id) == (0, 10 * OUTPUT_TOKEN)
    with transaction() as session:
        session.execute(update(SpendingHold).values(created_at=now() - timedelta(minutes=2)))
    spending.clear_up()
    assert counter(key.key_id) == (0, 0)


def test_a_call_wrongly_taken_for_dead_still_counts_once(app: Flask, facts: Facts) -> None:
    key = facts(monthly_limit_nano_usd=USD)
    call = call_of(key)
    spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
    call.input_tokens, call.output_tokens = 0, 3
    Meter().open(call, 200)
    kill(call)
    metering.complete_orphans()
    assert counter(key.key_id) == (3 * OUTPUT_TOKEN, 0)
    finish(call, 10, streamed=True)
    assert counter(key.key_id) == (10 * OUTPUT_TOKEN, 0)
    assert [(row.code, row.cost_nano_usd) for row in rows_of(UsageRecord)] == [(None, 10 * OUTPUT_TOKEN)]


@pytest.mark.parametrize("moment", ["before a stream", "after a stream", "after an answer"])
def test_a_hold_that_could_not_be_settled_is_settled_or_released_by_its_own_process(
    app: Flask, facts: Facts, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    key = facts(monthly_limit_nano_usd=USD)
    call = call_of(key)
    spending.hold(call, ROUTES, input_tokens=0, output_tokens=10)
    meter = Meter()
    if moment == "after a stream":
        meter.open(call, 200)

    def away(*_: Any) -> Any:
        raise DatabaseUnavailable

    act = {
        "before a stream": lambda: meter.open(call, 200),
        "after a stream": lambda: finish(call, 5, streamed=True),
        "after an answer": lambda: finish(call, 5),
    }[moment]
    with monkeypatch.context() as patch:
        # The last statement fails, so that what went before it has to be undone.
        patch.setattr(spending, "settle", away)
        patch.setattr(Quick, "run", away)
        with pytest.raises(DatabaseAway):
            act()
    assert [row.ended_at for row in rows_of(UsageRecord)] == ([None] if moment == "after a stream" else [])
    assert counter(key.key_id) == (0, 10 * OUTPUT_TOKEN)
    spending.release_abandoned()
    settling.settle_waiting()
    # What was answered is paid for; what was refused is not.
    assert counter(key.key_id) == ((5 * OUTPUT_TOKEN, 0) if moment == "after a stream" else (0, 0))


# ---- any order

OPERATIONS = st.one_of(
    st.tuples(st.just("hold"), st.integers(0, 60), st.booleans()),
    st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 60)),
    st.tuples(st.just("die"), st.integers(0, 9), st.just(0)),
    st.tuples(st.sampled_from(["clear up", "recount", "lift and set"]), st.just(0), st.just(0)),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=25))
def test_in_any_order_counters_equal_rows_and_the_limit_holds(
    app: Flask, alice: Person, facts: Facts, operations: list[Any]
) -> None:
    limit = 100 * OUTPUT_TOKEN
    with transaction() as session:
        for model in (UsageRecord, SpendingHold, SpendingCounter, ApiKey):
            session.execute(delete(model))
    limit_workspace(alice, monthly_nano_usd=limit)
    key = facts(daily_limit_nano_usd=limit)
    world = World(key)
    for what, first, second in operations:
        if what == "hold":
            world.hold(first, streamed=bool(second))
        elif what == "settle":
            world.settle(first, second)
        elif what == "die":
            world.die(first)
        elif what == "clear up":
            metering.complete_orphans()
            spending.clear_up()
        elif what == "recount":
            spending.recount()
        else:
            limit_workspace(alice, monthly_nano_usd=limit)
        check(key, limit + world.beyond)


class World:
    """The calls in progress: how much output each may have, whether it is streamed, and whether it passes for dead."""

    def __init__(self, key: KeyFacts) -> None:
        self.key = key
        self.calls: list[tuple[Call, int, bool, bool]] = []
        # Costs of calls that went on after they had been taken for dead, when their hold may be given back already.
        self.beyond = 0

    def hold(self, bound: int, *, streamed: bool) -> None:
        call = call_of(self.key)
        try:
            spending.hold(call, ROUTES, input_tokens=0, output_tokens=bound)
        except SpendingLimitReached:
            return
        if streamed:
            Meter().open(call, 200)
        self.calls.append((call, bound, streamed, False))

    def settle(self, place: int, used: int) -> None:
        if place < len(self.calls):
            call, bound, streamed, dead = self.calls.pop(place)
            used = min(used, bound)
            finish(call, used, streamed=streamed)
            self.beyond += used * OUTPUT_TOKEN if dead else 0

    def die(self, place: int) -> None:
        if place < len(self.calls):
            kill(self.calls[place][0])
            self.calls[place] = (*self.calls[place][:3], True)


def check(key: KeyFacts, most: int) -> None:
    holds = {hold.request_id: hold for hold in rows_of(SpendingHold)}
    for (owner_id, period), (spent, held) in counters().items():
        mine = UsageRecord.api_key_id == key.key_id if owner_id == key.key_id else UsageRecord.id > 0
        costs = db.session.scalar(select(func.coalesce(func.sum(UsageRecord.cost_nano_usd), 0)).where(mine))
        assert spent == costs
        assert held == sum(hold.nano_usd for hold in holds.values() if f"{owner_id}/{period}" in hold.counters)
        assert held >= 0
        assert spent + held <= most
