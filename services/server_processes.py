"""Which server process this is, so that what a dead one had begun can be told from what is still being worked on."""

from __future__ import annotations

import os

from models.base import new_id

_own: dict[int, str] = {}


def own_id() -> str:
    """Return the id of this process; a fork has one of its own."""
    pid = os.getpid()
    if pid not in _own:
        _own.clear()
        _own[pid] = new_id("proc")
    return _own[pid]
