"""The zone in which a page tells and takes moments: that of the person who looks; UTC for everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, tzinfo

from flask import has_request_context

from blueprints.guards import entered
from services import time_zones

_fixed: ContextVar[tzinfo | None] = ContextVar("fixed_zone", default=None)


def current_zone() -> tzinfo:
    """Return the zone of the person who looks at the page."""
    fixed = _fixed.get()
    if fixed is not None:
        return fixed
    shell = entered() if has_request_context() else None
    return time_zones.zone_named(shell.time_zone) if shell else UTC


def zone_name() -> str:
    """Return the name of that zone, as labels and the footer say it: ``UTC``, ``Europe/Berlin``."""
    return time_zones.name_of(current_zone())


@contextmanager
def told_in_utc() -> Iterator[None]:
    """Tell every moment in UTC, whoever asks: what is written now is read by others."""
    before = _fixed.set(UTC)
    try:
        yield
    finally:
        _fixed.reset(before)
