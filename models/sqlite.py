"""How the portal opens SQLite: write-ahead log, foreign keys, and transactions that lose no update."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, QueuePool, event
from sqlalchemy.engine import Engine

BUSY_TIMEOUT_SECONDS = 10
_PAUSE_SECONDS = 0.005
# SQLite's own choice is 2,000.
_POOLED_CACHE_KIBIBYTES = 512


@event.listens_for(Engine, "connect")
def _set_up(connection: Any, _record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    # The driver's own transaction handling begins too late to protect a read; ours is in _begin.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}")
    _switch_to_write_ahead_log(cursor)
    # In WAL mode NORMAL survives a killed process; only a power cut can cost the last commits.
    cursor.execute("PRAGMA synchronous=NORMAL")
    # A checkpoint waits for the disk while every writer waits for it, so it comes less often than after 1,000 pages.
    cursor.execute("PRAGMA wal_autocheckpoint=4000")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What a mail said, with the link in it, is gone from the file once it was sent. The usual of some builds alone.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


@event.listens_for(QueuePool, "connect")
def _keep_few_pages(connection: Any, _record: Any) -> None:
    """Each connection of a pool has a cache of its own, which fills as the data grows: there are up to fifteen for
    pages in every process. What one of them does not keep, the system does, once for all."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"PRAGMA cache_size=-{_POOLED_CACHE_KIBIBYTES}")


def _switch_to_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Wait while another process does the same: SQLite itself does not, when several open a new file at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


@event.listens_for(Engine, "begin")
def _begin(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    immediate = connection.get_execution_options().get("begin_immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
