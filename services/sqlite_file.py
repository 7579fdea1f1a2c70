"""One connection per process to a SQLite file, shared by its threads and safe to fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Execute = Callable[..., sqlite3.Cursor]
_Result = TypeVar("_Result")

_PAUSE_SECONDS = 0.0005


class SQLiteFile:
    """A SQLite file in WAL mode. Entering it begins a write transaction, leaving it commits or rolls back::

        with file as execute:
            execute("UPDATE ...")

    The threads of the process queue on a mutex. The file is opened at the first use, and anew after every failure,
    since it may have been repaired or replaced by then. Of its own it raises only ``sqlite3.Error``, also to whoever
    cannot have the file within ``timeout`` seconds.

    ``synchronous`` is SQLite's: OFF survives the death of the process but not of the machine, NORMAL does both except
    for the latest commits, FULL waits for the disk at each commit.
    """

    def __init__(self, path: str, schema: Sequence[str], *, timeout: float, synchronous: str) -> None:
        # The folder the process works in may have changed by the time of the first use.
        self._path = os.path.abspath(path)
        self._setup = ("PRAGMA journal_mode = WAL", f"PRAGMA synchronous = {synchronous}", *schema)
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with _register_mutex:
            _files.add(self)

    def __enter__(self) -> Execute:
        deadline = self._lock()
        try:
            execute = (self._connection or self._open(deadline)).execute
            _retry_while_busy(deadline, execute, "BEGIN IMMEDIATE")
        except BaseException:
            self._close_and_unlock()
            raise
        return execute

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            # Closing rolls back.
            self._close_and_unlock()
            return
        assert self._connection is not None
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            self._close_and_unlock()
            raise
        self._mutex.release()

    def read_one(self, statement: str, parameters: Sequence[Any] | dict[str, Any]) -> Any:
        """Return the first row that one reading statement finds, or None. Does not wait for writers."""
        deadline = self._lock()
        try:
            execute = (self._connection or self._open(deadline)).execute
            row = _retry_while_busy(deadline, execute, statement, parameters).fetchone()
        except BaseException:
            self._close_and_unlock()
            raise
        self._mutex.release()
        return row

    def close(self) -> None:
        """Close the connection. The next use opens it again."""
        self.pause()
        self.resume()

    def pause(self) -> None:
        """Close the connection and hold all users back until ``resume``."""
        self._mutex.acquire()
        self._close()

    def resume(self) -> None:
        """Let users in again."""
        self._mutex.release()

    def __del__(self) -> None:
        self._close()

    def _lock(self) -> float:
        deadline = time.monotonic() + self._timeout
        if not self._mutex.acquire(timeout=self._timeout):
            raise sqlite3.OperationalError("the threads of this process wait too long for the file")
        return deadline

    def _close_and_unlock(self) -> None:
        self._close()
        self._mutex.release()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self, deadline: float) -> sqlite3.Connection:
        self._connection = _retry_while_busy(deadline, self._connect)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for statement in self._setup:
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection


def _retry_while_busy(deadline: float, action: Callable[..., _Result], *arguments: Any) -> _Result:
    # SQLite could wait by itself, but it sleeps up to 0.1 seconds between two attempts, so that a busy neighbour can
    # starve us for seconds; and it does not wait at all when several processes switch a new file to WAL.
    while True:
        try:
            return action(*arguments)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


# A SQLite connection must not be carried over a fork: the child would believe it holds its parent's file locks. So all
# are closed before a fork, with no transaction under way, and parent and child each open their own when they need it.
_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_register_mutex = threading.Lock()


def _before_fork() -> None:
    _register_mutex.acquire()
    for file in _files:
        file.pause()


def _after_fork() -> None:
    for file in _files:
        file.resume()
    _register_mutex.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
