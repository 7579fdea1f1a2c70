"""Calls as the lines of a CSV file that a spreadsheet opens without carrying anything out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from flask import Flask

from services.money import as_usd
from services.usage import cost_is_unknown

_LINES_AT_ONCE = 500
# What makes a spreadsheet take a cell for a formula (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(calls: Iterable[Any]) -> Iterator[str]:
    """Yield the file in pieces: a line of heads, then one for each call."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for number, call in enumerate(calls, start=1):
        writer.writerow([_cell(value_of(call)) for value_of in COLUMNS.values()])
        if number % _LINES_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def within(app: Flask, pieces: Iterator[str]) -> Iterator[str]:
    """Yield the pieces after the request is over; each is made with the app at hand, and none keeps a connection."""
    while True:
        with app.app_context():
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def _cell(value: Any) -> str:
    """Return the text of a cell. What a formula could begin with is quoted for the spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _cost(call: Any) -> str | None:
    if call.cost_nano_usd is not None:
        return as_usd(call.cost_nano_usd)
    return "unknown" if cost_is_unknown(call) else None


def _key(call: Any) -> str:
    return call.key_name if call.api_key_id else "Playground"


def _plain(name: str) -> Callable[[Any], Any]:
    return lambda call: getattr(call, name)


COLUMNS: dict[str, Callable[[Any], Any]] = {
    "started_at": _plain("started_at"),
    "request_id": _plain("request_id"),
    "key_id": _plain("api_key_id"),
    "key": _key,
    "environment": _plain("environment"),
    "endpoint": _plain("endpoint"),
    "requested_model": _plain("requested_model"),
    "model": _plain("model"),
    "provider": _plain("provider"),
    "status": _plain("status"),
    "code": _plain("code"),
    "streamed": _plain("streamed"),
    "duration_ms": _plain("duration_ms"),
    "input_tokens": _plain("input_tokens"),
    "cached_input_tokens": _plain("cached_input_tokens"),
    "output_tokens": _plain("output_tokens"),
    "estimated": _plain("estimated"),
    "cost_usd": _cost,
    "price_version": _plain("price_version"),
    "address": _plain("address"),
    "client": _plain("client"),
}
