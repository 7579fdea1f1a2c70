"""What a request for a report asks for, read from its query."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime

from flask import request

from blueprints.v1.paging import bad_cursor, place_in
from services.errors import InvalidRequest
from services.json_input import read_moment

USUAL_LIMIT, MOST = 50, 100


def refuse_unknown(known: Collection[str]) -> None:
    """A misspelt filter must not be ignored. Raises InvalidRequest."""
    for name, values in request.args.lists():
        if name not in known:
            raise InvalidRequest(f"There is no parameter '{name[:60]}'.", param=name[:60])
        if len(values) > 1:
            raise InvalidRequest(f"Give '{name}' once.", param=name)


def texts(names: Collection[str], longest: int) -> list[str | None]:
    """Return filters that are texts, None for one that is not given. Raises InvalidRequest."""
    given = {name: request.args.get(name) or None for name in names}
    for name, value in given.items():
        if value is not None and len(value) > longest:
            raise InvalidRequest(f"Use at most {longest} characters.", param=name)
    return list(given.values())


def moment(name: str) -> datetime | None:
    """Return a UTC day's beginning or a moment with its zone, None when nothing is given. Raises InvalidRequest."""
    text = request.args.get(name)
    if text is None:
        return None
    found = _day(text) or read_moment(text)
    # Days are counted from it and to it.
    if found is None or not 1971 <= found.year <= 9990:
        raise InvalidRequest("Give a day like 2026-11-20, or a moment like 2026-11-20T14:00:00Z.", param=name)
    return found


def limit() -> int:
    """Return how many entries are asked for. Raises InvalidRequest."""
    text = request.args.get("limit", str(USUAL_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise InvalidRequest(f"Give a number from 1 to {MOST}.", param="limit")
    return int(text)


def before(most_digits: int) -> int | None:
    """Return the number that a page's cursor stands for, None for the first page. Raises InvalidRequest."""
    cursor = request.args.get("cursor")
    if cursor is None:
        return None
    try:
        place = place_in(cursor)
    except ValueError:
        raise bad_cursor() from None
    if not (place.isdigit() and len(place) <= most_digits):
        raise bad_cursor()
    return int(place)


def _day(text: str) -> datetime | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
