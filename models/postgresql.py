"""How the portal opens PostgreSQL: every wait for it is bounded.

A server that answers bounds its statements itself; one that hangs, or whose machine has vanished, cannot, so the waits
of this side are bounded as well. What the address of the database says of these settings wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import Engine

CONNECT_SECONDS = 3
# Whoever waits for a row or a lock for longer had better tell his caller to come again.
_LOCK_SECONDS = 5
# For a statement of a page, and of a call to /v1.
STATEMENT_SECONDS = 10
HOT_STATEMENT_SECONDS = 6
# The server's own word comes first where there is one, because it costs no connection.
_MORE_SECONDS = 1.0
# How soon a machine that has vanished is noticed, here and there.
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3, "tcp_user_timeout": 8000}
_SERVER_KEEPALIVES = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
# What a client that vanished within a transaction has locked is not locked for longer.
_IDLE_IN_TRANSACTION_SECONDS = 60

_STATEMENT_OPTION = "statement_seconds"


def hot_path() -> dict[str, Any]:
    """Return the connect arguments for the single statements of /v1."""
    return {_STATEMENT_OPTION: HOT_STATEMENT_SECONDS}


@contextmanager
def unbounded(connection: Connection) -> Iterator[None]:
    """Let the statements of this transaction take their time: a migration or a backup of much data does.

    What waits for a lock still waits no longer than anybody, because whoever comes after it waits behind it.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = connection.connection.driver_connection
    bound, driver.longest_wait = driver.longest_wait, None
    try:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {name} = 0"))
        yield
    finally:
        driver.longest_wait = bound


@event.listens_for(Engine, "do_connect")
def _connect(dialect: Any, _record: Any, arguments: Any, given: dict[str, Any]) -> Any:
    if dialect.name != "postgresql":
        return None
    seconds = given.get(_STATEMENT_OPTION, STATEMENT_SECONDS)
    options = {
        "statement_timeout": seconds * 1000,
        "lock_timeout": _LOCK_SECONDS * 1000,
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_SECONDS * 1000,
        **_SERVER_KEEPALIVES,
    }
    ours: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        **_KEEPALIVES,
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
    }
    settings = ours | {name: value for name, value in given.items() if name != _STATEMENT_OPTION}
    # The driver takes longer to load than the rest of a command on SQLite.
    from models.postgresql_connection import BoundedConnection

    connection = BoundedConnection.connect(*arguments, **settings)
    connection.require_utf8()
    connection.longest_wait = seconds + _MORE_SECONDS
    return connection
