"""Checkpoints of SQLite's log: what was committed is brought into the file itself, beside the calls and not within one.

SQLite would do it within the commit that makes the log too long. That call, and all that wait for it, then wait for the
disk: twenty milliseconds, about once a second on a busy portal.
"""

from __future__ import annotations

from services.parts import parts

_LONG_BYTES = 16_000_000


def checkpoint() -> None:
    """Bring a long log into the file. For every process; PostgreSQL looks after its own.

    The log begins anew when all of it is in the file, which is only so while nobody adds to it. So the most is brought
    over while others go on, and what has come meanwhile, in a few milliseconds, while the calls of this process wait.
    """
    tools = parts()
    if tools.quick.log_bytes() < _LONG_BYTES:
        return
    with tools.quick.aside() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with tools.turns:
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
