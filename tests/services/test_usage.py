"""The figures are those of the rows, to the unit, on either database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import UsageRecord
from models.base import now
from services import keys, usage
from services.errors import NotFound
from services.usage import ALL, DAY, HOUR, PLAYGROUND, Period, Wanted
from tests.calls import Owner, added_up, call, keep, random_calls
from tests.people import Person

Mint = Callable[..., keys.Minted]


@pytest.fixture
def owners(alice: Person, charlie: Person, mint: Mint) -> list[Owner]:
    """Two keys and the playground of alice, and a key of charlie."""
    return [*(of_key(mint()) for _ in range(2)), Owner(alice.workspace_id, None, None), of_key(mint(owner=charlie))]


def of_key(minted: keys.Minted) -> Owner:
    return Owner(minted.key.workspace_id, minted.key.id, minted.key.secrets[0].id)


def matching(rows: list[dict[str, Any]], person: Person, period: Period, wanted: Wanted) -> list[dict[str, Any]]:
    return [
        row
        for row in rows
        if row["workspace_id"] == person.workspace_id
        and period.start <= row["started_at"] < period.end
        and row["code"] != "invalid_api_key"
        and wanted.key_id in (None, row["api_key_id"] or PLAYGROUND)
        and wanted.model in (None, row["model"])
        and wanted.provider in (None, row["provider"])
    ]


def by(name: str, rows: list[dict[str, Any]]) -> dict[Any, Any]:
    return {value: added_up(row for row in rows if row[name] == value) for value in {row[name] for row in rows}}


def test_every_figure_is_the_sum_of_its_rows(alice: Person, owners: list[Owner]) -> None:
    rows = random_calls(owners, now() - 45 * DAY, now(), 400, seed=1)
    keep(rows)
    key_id = owners[0].key_id
    questions = [ALL, Wanted(key_id=key_id), Wanted(key_id=PLAYGROUND), Wanted(provider="openai")]
    questions += [Wanted(model="gpt-4o", provider="openai"), Wanted(key_id, "llama3"), Wanted(model="nothing")]
    odd = Period(now() - timedelta(days=9, hours=5, minutes=1), now() - timedelta(hours=2, seconds=3), DAY)
    for period in (usage.last_hours(), usage.last_days(30), usage.this_month(), odd):
        for wanted in questions if period is odd else [ALL]:
            expected = matching(rows, alice, period, wanted)
            report = usage.report(alice.workspace, period, wanted)
            assert report.total == usage.total(alice.workspace, period, wanted) == added_up(expected)
            assert report.by_key == by("api_key_id", expected)
            assert report.by_model == by("model", expected)
            assert report.by_provider == by("provider", expected)
            for part, (begin, end) in zip(report.parts, period.parts(), strict=True):
                within = [row for row in expected if begin <= row["started_at"] < end]
                assert (part.start, part.figures) == (begin, added_up(within))
                assert part.by_provider == by("provider", within)
            listed = [row.request_id for row in usage.calls(alice.workspace, period, wanted)]
            assert sorted(listed) == sorted(row["request_id"] for row in expected)


def test_every_call_is_listed_once_in_order_however_many_began_at_once(
    alice: Person, owners: list[Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_CALLS_AT_ONCE", 4)
    moment = now() - HOUR
    rows = [call(owners[0], moment + timedelta(seconds=number // 9)) for number in range(28)]
    keep(rows)
    period = usage.last_days(2)
    listed = [row.request_id for row in usage.calls(alice.workspace, period)]
    assert listed == [row["request_id"] for row in rows]
    paged, before, more = [], None, True
    while more:
        found, more = usage.page(alice.workspace, period, ALL, limit=5, before=before)
        paged += [row.request_id for row in found]
        before = found[-1].id
    assert paged == listed[::-1]


def test_a_page_does_not_begin_at_another_workspaces_call(alice: Person, charlie: Person, owners: list[Owner]) -> None:
    keep([call(owners[3], now())])
    theirs, _ = usage.page(charlie.workspace, usage.last_days(1), ALL, limit=1)
    with pytest.raises(NotFound):
        usage.page(alice.workspace, usage.last_days(1), ALL, limit=1, before=theirs[0].id)


def test_the_busiest_minute_counts_what_counted_against_the_rate(alice: Person, owners: list[Owner]) -> None:
    minute = now().replace(second=0, microsecond=0) - 2 * HOUR
    counted = [None, "provider_error", "spending_limit_reached", "caller_hung_up"]
    codes = [*counted, "rate_limit_exceeded", "insufficient_scope", "invalid_api_key", "plan_required"]
    rows = [call(owners[0], minute + timedelta(seconds=5), code=code) for code in codes]
    rows += [call(owners[1], minute + timedelta(seconds=59.9)), call(owners[3], minute)]
    rows += [call(owners[0], minute + timedelta(seconds=60)), call(owners[0], minute - timedelta(seconds=1))]
    keep(rows)
    busiest = usage.minutes(alice.workspace, usage.last_hours())
    assert len(busiest) == 24
    assert max(busiest) == len(counted) + 1
    assert sum(count > 1 for count in busiest) == 1


def test_names_beyond_a_number_are_put_together(
    alice: Person, owners: list[Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MOST_NAMES", 3)
    keep([call(owners[0], now(), model=f"model {number}") for number in range(10)])
    report = usage.report(alice.workspace, usage.last_days(1))
    assert len(report.by_model) == 4
    assert report.by_model[usage.OTHERS].requests == 7
    assert sum(figures.requests for figures in report.by_model.values()) == report.total.requests == 10
    # One that is not among the names can be asked for all the same.
    for number in range(10):
        assert usage.report(alice.workspace, usage.last_days(1), Wanted(model=f"model {number}")).total.requests == 1


def test_whether_there_ever_was_a_call(alice: Person, charlie: Person, owners: list[Owner]) -> None:
    keep([call(owners[3], now()), call(owners[0], now(), code="invalid_api_key", status=403)])
    assert not usage.has_calls(alice.workspace)
    assert usage.has_calls(charlie.workspace)


def test_a_row_and_the_figures_agree_on_what_is_unknown(alice: Person, owners: list[Owner]) -> None:
    keep(random_calls(owners[:1], now() - DAY, now(), 200, seed=3))
    period = usage.last_days(3)
    unknown = sum(usage.cost_is_unknown(row) for row in usage.calls(alice.workspace, period))
    assert unknown == usage.total(alice.workspace, period).unknown > 0


def test_every_sum_is_in_the_figures() -> None:
    assert list(asdict(usage.Figures())) == list(usage.Figures.__slots__)
    assert len(usage._sums()) == len(usage.Figures.__slots__)
    assert {column.name for column in UsageRecord.__table__.columns} > {"cost_nano_usd", "estimated"}


moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(moments, st.timedeltas(timedelta(microseconds=1), timedelta(days=40)), st.sampled_from([HOUR, DAY]))
def test_the_parts_of_a_period_leave_nothing_out_and_take_nothing_twice(
    start: datetime, length: timedelta, step: timedelta
) -> None:
    period = Period(start, start + length, step)
    parts = list(period.parts())
    assert parts[0][0] == period.start
    assert parts[-1][1] == period.end
    for (_, end), (begin, _) in pairwise(parts):
        assert end == begin
        assert (begin - datetime(2020, 1, 1, tzinfo=UTC)) % step == timedelta(0)
    assert all(timedelta(0) < end - begin <= step for begin, end in parts)
