"""Cursors: where a page of a list ends, in a form that nobody is tempted to take apart."""

from __future__ import annotations

import base64
import binascii


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
