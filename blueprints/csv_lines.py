"""A CSV file in pieces, which a spreadsheet opens without carrying anything out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from flask import Flask

CONTENT_TYPE = "text/csv; charset=utf-8; header=present"
_LINES_AT_ONCE = 500
# What makes a spreadsheet take a cell for a formula (https://owasp.org/www-community/attacks/CSV_Injection), at its
# beginning and where it would begin in a spreadsheet whose separator is another one: Excel goes by the country.
_FORMULA = re.compile("^[ \u00a0]*[=+\\-@\t\r\n＝＋－＠]|(?<=[;,\t\r\n|\"'])[ \u00a0]*[=+\\-@＝＋－＠]")
_HARMLESS = re.compile(r"[\w./:]*")


def lines(columns: Mapping[str, Callable[[Any], Any]], rows: Iterable[Any]) -> Iterator[str]:
    """Yield the file in pieces: a line of heads, then one for each row; a column tells its value of it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        writer.writerow([cell(value_of(row)) for value_of in columns.values()])
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


def cell(value: Any) -> str:
    """Return the text of a cell. What a formula could begin with is quoted for the spreadsheet by an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
    text = str(value)
    return text if _HARMLESS.fullmatch(text) else _FORMULA.sub(r"'\g<0>", text)
