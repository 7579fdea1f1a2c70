"""Cursors: where a page of a list ends, in a form that nobody is tempted to take apart."""

from __future__ import annotations

import base64
import binascii

from flask import request

from services.errors import InvalidInput, InvalidRequest

USUAL_LIMIT, MOST = 20, 100


def asked_page() -> tuple[int, str | None]:
    """Return how many things the request asks for, and after which one. Raises InvalidInput, InvalidRequest."""
    limit = request.args.get("limit", str(USUAL_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(MOST)) and 1 <= int(limit) <= MOST):
        raise InvalidInput({"limit": f"Give a number from 1 to {MOST}"})
    cursor = request.args.get("cursor")
    try:
        return int(limit), None if cursor is None else place_in(cursor)
    except ValueError:
        raise bad_cursor() from None


def bad_cursor() -> InvalidRequest:
    """The refusal of a place that is in no list of the caller's."""
    return InvalidRequest("This cursor is none of ours. Begin without one.", param="cursor")


def cursor_after(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_in(cursor: str) -> str:
    """Return what the cursor was made of. Raises ValueError for what is none of ours."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except binascii.Error as error:
        raise ValueError from error
    if "\0" in text:
        raise ValueError
    return text
