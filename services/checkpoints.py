"""Checkpoints of SQLite's log: what was committed is brought into the file itself, beside the calls and not within one.

SQLite would do it within the commit that makes the log too long. That call, and all that wait for it, then wait for the
disk: twenty milliseconds, about once a second on a busy portal.
"""

from __future__ import annotations

from services.parts import parts

_LONG_BYTES = 16_000_000
# Below the length at which SQLite does it within every commit.
_TOO_LONG_BYTES = 32_000_000
# For those who are reading at that moment; pages of a busy process take so long.
_WAIT_MILLISECONDS = 100


def checkpoint() -> None:
    """Bring a long log into the file. For every process; PostgreSQL looks after its own.

    The log begins anew when all of it is in the file, which is only so while nobody adds to it. So the most is brought
    over while others go on, and what has come meanwhile, in a few milliseconds, while the calls of this process wait.

    Where several processes are busy there is no such moment: one of them always adds to the log, or a page reads in it.
    It would grow for as long as that lasts. So when it is too long, all who write wait until those who read are done.
    """
    tools = parts()
    if tools.quick.log_bytes() < _LONG_BYTES:
        return
    with tools.quick.aside() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with tools.turns.alone():
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            if tools.quick.log_bytes() > _TOO_LONG_BYTES:
                cursor.execute(f"PRAGMA busy_timeout={_WAIT_MILLISECONDS}")
                # If they are not done by then, the next look at it tries again.
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
