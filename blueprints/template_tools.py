"""What templates may call beyond plain Jinja: words for moments and numbers, and help for forms.

``init_templates`` registers all of it. The past is told relatively, a deadline exactly, always in the zone of the
person who looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from flask import Flask
from wtforms import Field, Form

from blueprints.guards import entered
from blueprints.times import current_zone, zone_name
from models.base import now
from services.time_zones import abbreviation

MINUTE, HOUR = 60, 3600
BAR_FIELD_HEIGHT = 20
HIGHEST_BAR = 19


def init_templates(app: Flask) -> None:
    """Register the filters that the templates use, and the settings that pages show."""
    words = [iso, precise, told, retry_moment, thousands, compact, plural, money, percent, share, short_name, span]
    helpers = [bars, described, described_by, error_lines]
    app.jinja_env.filters.update({function.__name__: function for function in [*words, *helpers]})
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(
        brand=app.config["BRAND"],
        sales_address=app.config["SALES_EMAIL"],
        key_prefix=app.config["KEY_PREFIX"],
        public_url=app.config["PUBLIC_URL"],
    )
    app.context_processor(lambda: {"shell": entered(), "zone_name": zone_name()})


def iso(moment: datetime) -> str:
    """Return the machine's form: ``2026-11-20T14:03:11Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def precise(moment: datetime) -> str:
    """Return the moment to the second: ``20 Nov 2026, 14:03:11 UTC``."""
    return f"{day(moment)}, {moment.astimezone(current_zone()):%H:%M:%S} {_zone_at(moment)}"


def exact(moment: datetime) -> str:
    """Return a deadline: ``Fri 27 Nov 2026, 14:00 UTC``."""
    return f"{moment.astimezone(current_zone()):%a} {day(moment)}, {clock(moment)}"


def day(moment: datetime) -> str:
    """Return the day: ``9 Nov 2026``."""
    moment = moment.astimezone(current_zone())
    return f"{moment.day} {moment:%b %Y}"


def relative(moment: datetime, at: datetime | None = None) -> str:
    """Return how long ago a past moment was; from 30 days on, its day. A moment ahead of the clock is just now."""
    at, zone = at or now(), current_zone()
    seconds = max(0, int((at - moment).total_seconds()))
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{plural(seconds // MINUTE, 'minute')} ago"
    days = (at.astimezone(zone).date() - moment.astimezone(zone).date()).days
    if days <= 0:
        return f"{plural(seconds // HOUR, 'hour')} ago"
    if days == 1:
        return "yesterday"
    return f"{days} days ago" if days < 30 else day(moment)


def clock(moment: datetime) -> str:
    """Return the time of day: ``14:10 UTC``."""
    return f"{moment.astimezone(current_zone()):%H:%M} {_zone_at(moment)}"


def soon(moment: datetime) -> str:
    """Return a near deadline, short enough for a table: ``27 Nov, 14:00 UTC``."""
    moment = moment.astimezone(current_zone())
    return f"{moment.day} {moment:%b}, {clock(moment)}"


def _zone_at(moment: datetime) -> str:
    return abbreviation(moment, current_zone())


def starting(moment: datetime) -> str:
    """Return how long ago a past moment was, as the first words of a cell: ``Yesterday``."""
    text = relative(moment)
    return text[:1].upper() + text[1:]


STYLES = {
    "relative": relative,
    "start": starting,
    "exact": exact,
    "precise": precise,
    "soon": soon,
    "day": day,
    "clock": clock,
}


def told(moment: datetime, style: str) -> str:
    """Return the moment in one of the styles."""
    return STYLES[style](moment)


def retry_moment(seconds: int) -> datetime:
    """Return the first full minute at which those seconds are over."""
    over = now() + timedelta(seconds=seconds)
    return over.replace(second=0, microsecond=0) + timedelta(minutes=1)


def thousands(number: int) -> str:
    """Return a whole number with commas: ``182,440``."""
    return f"{number:,}"


def compact(number: int) -> str:
    """Return a whole number short enough for an axis: ``20,000``, but ``40 M``."""
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= size:
            return f"{number / size:,.4g} {letter}".replace(".0 ", " ")
    return thousands(number)


def money(nano_usd: int | None) -> str:
    """Return nano-dollars in dollars: ``$1,204.50``, smaller sums with as many places as tell them apart: ``$0.0041``.

    What is not known is ``unknown``, and what is above nothing is never shown as nothing.
    """
    if nano_usd is None:
        return "unknown"
    if nano_usd < 0:
        return "−" + money(-nano_usd)
    dollars = Decimal(nano_usd).scaleb(-9)
    if dollars == 0 or dollars >= 1:
        return f"${dollars:,.2f}"
    # Two digits that count, and no noughts at the end but those of the cents.
    places = max(2, 1 - dollars.adjusted())
    return "$" + f"{dollars:.{places}f}".rstrip("0").ljust(4, "0")


def percent(part: int, whole: int) -> str:
    """Return a share in per cent, with one place: ``99.2 %``. It is 0 or 100 only if nothing or everything is meant."""
    if whole == 0:
        return "0\u2009%"
    tenths = round(1000 * part / whole)
    tenths = min(999, max(1, tenths)) if 0 < part < whole else tenths
    return f"{tenths / 10:.1f}\u2009%" if tenths % 1000 else f"{tenths // 10}\u2009%"


def share(part: int, whole: int, of: int) -> float:
    """Return how much of ``of`` a part of a whole takes, for the length of a bar; never more than all of it."""
    return round(min(1.0, part / whole) * of, 1) if whole else 0.0


def plural(number: int, noun: str, nouns: str = "") -> str:
    """Return number and noun, with an s unless there is one of it or it has another plural: ``1 key``, ``2 keys``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def short_name(name: str) -> str:
    """Return who somebody is in a narrow column: an e-mail address up to its @."""
    return name.partition("@")[0] or name


def span(seconds: float) -> str:
    """Return how long that is in the greatest unit that tells it in whole numbers: ``2 seconds``, ``24 hours``."""
    for size, unit in ((HOUR, "hour"), (MINUTE, "minute")):
        if seconds >= size and seconds % size == 0:
            return plural(int(seconds // size), unit)
    return plural(int(seconds), "second")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a spark: its top and height in a field of 20, and whether its number is nought."""

    y: float
    height: float
    empty: bool


def bars(numbers: Sequence[int]) -> list[Bar]:
    """Return one bar for each number, the greatest 19 high; a number too small to see is one unit high."""
    highest = max(numbers, default=0)
    heights = [max(1.0, round(number / highest * HIGHEST_BAR, 1)) if highest else 1.0 for number in numbers]
    return [
        Bar(round(BAR_FIELD_HEIGHT - height, 1), height, number == 0)
        for number, height in zip(numbers, heights, strict=True)
    ]


def described_by(field: Field, hint: str = "") -> str:
    """Return the ids of a field's hint and error, for ``aria-describedby``; empty when it has neither."""
    parts = ["hint"] if hint else []
    parts += ["error"] if field.errors else []
    return " ".join(f"{field.id}-{part}" for part in parts)


def described(field: Field, hint: str = "") -> dict[str, str]:
    """Return the attributes that tie a field to its hint and error."""
    attributes = {"aria-describedby": described_by(field, hint)} if described_by(field, hint) else {}
    return {**attributes, "aria-invalid": "true"} if field.errors else attributes


def error_lines(form: Form) -> Iterator[tuple[str, str]]:
    """Yield each problem of a form with the id of the element to go to, in the order of the fields."""
    for text in form.form_errors:
        yield str(text), ""
    for field in form:
        for text in field.errors[:1]:
            yield str(text), _first_id(field)


def _first_id(field: Any) -> str:
    """The id of a field's first control: radio buttons have one each, and the group none."""
    if field.type == "RadioField":
        return str(next(option.id for option in field))
    return str(field.id)
