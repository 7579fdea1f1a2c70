"""How the portal opens SQLite: write-ahead log, foreign keys, and transactions that lose no update."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, QueuePool, event
from sqlalchemy.engine import Engine

BUSY_TIMEOUT_SECONDS = 10
_PAUSE_SECONDS = 0.005
# How long a look at whether a file takes writes waits for who is writing.
_LOOK_SECONDS = 0.1
# SQLite's own choice is 2,000.
_POOLED_CACHE_KIBIBYTES = 512


def identity(file: str) -> tuple[int, int] | None:
    """Return what tells a file from another one under the same name, None when there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def takes_writes(file: str) -> bool:
    """Tell whether something could be written now, or when whoever is writing is done. Changes nothing."""
    # On a connection of its own: one that was opened for writing finds out only when it has something to commit, and
    # whoever needs it does not wait meanwhile. A file that is missing is not made.
    address = f"{Path(file).absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(address, uri=True, timeout=_LOOK_SECONDS, isolation_level=None)
        ) as look:
            look.execute("BEGIN IMMEDIATE")
            look.execute("ROLLBACK")
    except sqlite3.Error as error:
        # What the driver itself refuses has no code.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return True


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
