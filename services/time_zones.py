"""Time zones by their IANA names, and the hours and days of a zone as moments in UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

USUAL = "UTC"
HOUR = timedelta(hours=1)
_NAME_LENGTH = 40
# Beside the places there are abbreviations of old and areas that mean a fixed distance, the wrong way round.
_NO_PLACES = ("Etc/", "SystemV/", "posix/", "right/")


@cache
def names() -> tuple[str, ...]:
    """Return what can be chosen: UTC, then the places in alphabetical order."""
    places = (name for name in available_timezones() if "/" in name and not name.startswith(_NO_PLACES))
    return (USUAL, *sorted(name for name in places if len(name) <= _NAME_LENGTH))


def known(name: str) -> bool:
    return name in names()


@cache
def zone_named(name: str) -> tzinfo:
    """Return the zone; UTC for a name that this machine does not know (any more)."""
    return ZoneInfo(name) if name != USUAL and known(name) else UTC


def name_of(zone: tzinfo) -> str:
    """Return the name of a zone that ``zone_named`` gave."""
    return zone.key if isinstance(zone, ZoneInfo) else USUAL


def abbreviation(moment: datetime, zone: tzinfo) -> str:
    """Return what clocks of the zone are said to show at a moment: ``CET``; ``UTC−03:00`` where there is no word."""
    local = moment.astimezone(zone)
    word = local.tzname() or ""
    if word.isalpha():
        return word
    minutes = round((local.utcoffset() or timedelta()).total_seconds() / 60)
    return f"UTC{'−' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def beginning_of(day: date, zone: tzinfo) -> datetime:
    """Return the moment in UTC at which a day begins: midnight, or when clocks skip it the moment after."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def day_of(moment: datetime, zone: tzinfo) -> date:
    return moment.astimezone(zone).date()


def hour_at(moment: datetime, zone: tzinfo) -> datetime:
    """Return the moment in UTC at which the hour began that the zone's clocks show; there are zones at half past."""
    offset = moment.astimezone(zone).utcoffset() or timedelta()
    local = moment.astimezone(UTC) + offset
    return local.replace(minute=0, second=0, microsecond=0) - offset


def moment_at(day: date, clock: time, zone: tzinfo) -> datetime | None:
    """Return the moment in UTC at which the zone's clocks show this; None when they skip it.

    Of two, when clocks are put back, the earlier.
    """
    local = datetime.combine(day, clock, zone)
    moment = local.astimezone(UTC)
    shown = moment.astimezone(zone)
    return moment if (shown.date(), shown.time()) == (day, clock) else None
