"""Hours and days of a zone: half-hour zones, and days of 23 and 25 hours."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, time, timedelta

import pytest

from services import time_zones
from services.time_zones import abbreviation, beginning_of, hour_at, moment_at, zone_named
from services.usage import DAY, HOUR, Period

BERLIN, KOLKATA, KATHMANDU, LORD_HOWE, SANTIAGO, APIA = (
    zone_named(name)
    for name in (
        "Europe/Berlin",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "America/Santiago",
        "Pacific/Apia",
    )
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_names_are_those_of_places_and_utc() -> None:
    assert time_zones.names()[0] == "UTC"
    assert time_zones.known("Europe/Berlin")
    for name in ("", "CET", "Etc/GMT+3", "posix/UTC", "../../etc/passwd", "Mars/Olympus", "europe/berlin", "UTC "):
        assert not time_zones.known(name), name
        assert zone_named(name) is UTC


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, date(2026, 11, 20), 24),
        (BERLIN, date(2026, 3, 29), 23),
        (BERLIN, date(2026, 10, 25), 25),
        (SANTIAGO, date(2026, 9, 6), 23),  # its midnight does not exist
        (KATHMANDU, date(2026, 10, 25), 24),
        (LORD_HOWE, date(2026, 4, 5), 24.5),
    ],
)
def test_a_day_has_the_hours_that_its_clocks_give_it(zone: object, day: date, hours: float) -> None:
    begin, end = (beginning_of(one, zone) for one in (day, day + timedelta(days=1)))  # type: ignore[arg-type]
    assert end - begin == timedelta(hours=hours)
    parts = list(Period(begin, end, HOUR, zone).parts())  # type: ignore[arg-type]
    assert parts[0][0] == begin
    assert parts[-1][1] == end
    assert all(left[1] == right[0] for left, right in itertools.pairwise(parts))
    assert all(timedelta() < last - first <= HOUR for first, last in parts)
    assert len(list(Period(begin, end, DAY, zone).parts())) == 1  # type: ignore[arg-type]


def test_hours_begin_where_the_clocks_of_the_zone_say() -> None:
    assert hour_at(utc("2026-11-20T14:40"), KOLKATA) == utc("2026-11-20T14:30")
    assert hour_at(utc("2026-11-20T14:10"), KATHMANDU) == utc("2026-11-20T13:15")
    assert hour_at(utc("2026-11-20T14:40"), UTC) == utc("2026-11-20T14:00")
    assert beginning_of(date(2026, 11, 20), KOLKATA) == utc("2026-11-19T18:30")


def test_a_day_that_a_zone_left_out_has_no_part() -> None:
    days = list(Period(beginning_of(date(2011, 12, 29), APIA), beginning_of(date(2012, 1, 1), APIA), DAY, APIA).parts())
    assert [first.astimezone(APIA).day for first, _ in days] == [29, 31]


def test_a_moment_is_entered_by_the_clocks_of_the_zone() -> None:
    assert moment_at(date(2026, 7, 1), time(14), BERLIN) == utc("2026-07-01T12:00")
    assert moment_at(date(2026, 3, 29), time(2, 30), BERLIN) is None
    # The first of two.
    assert moment_at(date(2026, 10, 25), time(2, 30), BERLIN) == utc("2026-10-25T00:30")


def test_the_zone_of_a_moment_is_told_in_short() -> None:
    winter, summer = utc("2026-01-01T00:00"), utc("2026-07-01T00:00")
    assert [abbreviation(moment, BERLIN) for moment in (winter, summer)] == ["CET", "CEST"]
    assert abbreviation(winter, KATHMANDU) == "UTC+05:45"
    assert abbreviation(winter, zone_named("America/Sao_Paulo")) == "UTC−03:00"
    assert abbreviation(winter, UTC) == "UTC"
