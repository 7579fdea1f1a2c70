"""One connection per process to a SQLite file, shared by its threads and safe to fork."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import structlog

from models.sqlite import identity

Execute = Callable[..., sqlite3.Cursor]
_Result = TypeVar("_Result")

MEMORY = ":memory:"
_PAUSE_SECONDS = 0.0005
# How often it is looked whether the file is still the one that was opened.
_LOOK_SECONDS = 0.1
_NUMBER_BYTES = 8
# How long a file that was begun anew is kept: what is still wrong with it then is no damage.
_KEEP_SECONDS = 10.0
# What a sound file cannot answer to statements that are made for its tables: that it has no such column, say, or holds
# already what only a hit of a moment ago could have put there. A good file may well be locked, full or read-only, on a
# disk in trouble, or asked by somebody who has no memory left.
_DAMAGE = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_INTERNAL,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOTADB,
)
# How the driver, which has no code for it, begins to say that a value is no text.
_NO_TEXT = "Could not decode"
# Where in a file stand two bytes that say how it may be written and read, and what they are at most.
_FORMAT_AT, _LATEST_FORMAT = 18, 2

_log = structlog.get_logger("sqlite_file")


class Damaged(sqlite3.DatabaseError):
    """The file says what no sound one can say."""


def understand(read: Callable[[list[Any]], _Result], rows: list[Any]) -> _Result:
    """Return what ``read`` makes of rows. Raises Damaged when it can make nothing of them."""
    try:
        return read(rows)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Damaged("the file holds values that nobody has put there") from error


class SQLiteFile:
    """A SQLite file in WAL mode. Entering it begins a write transaction, leaving it commits or rolls back::

        with file as execute:
            execute("UPDATE ...")

    The threads of the process queue on a mutex. The file is opened at the first use, and anew after every failure,
    since it may have been repaired or replaced by then. Of its own it raises only ``sqlite3.Error``, also to whoever
    has waited ``timeout`` seconds for the file while nobody in this process got on with it.

    ``synchronous`` is SQLite's: OFF survives the death of the process but not of the machine, NORMAL does both except
    for the latest commits, FULL waits for the disk at each commit.

    A ``disposable`` file is made anew when it is damaged or missing. Whoever meets the damage still gets an error,
    Damaged, as what was under way is lost; the next use finds the file put aside as ``NAME.damaged``, by itself unless
    another process was first. To such a file each statement must be one that succeeds on every sound one. The path may
    be ``:memory:``.
    """

    # At the end of the interpreter the names of this module are gone before its objects are.
    _release = staticmethod(os.close)

    def __init__(
        self, path: str, schema: Sequence[str], *, timeout: float, synchronous: str, disposable: bool = False
    ) -> None:
        # The folder the process works in may have changed by the time of the first use.
        self._path = path if path == MEMORY else os.path.abspath(path)
        self._disposable = disposable and path != MEMORY
        # The one that was found damaged, as it is told from the one that takes its place.
        self._condemned: tuple[tuple[int, int] | None, int] | None = None
        self._keep_until = 0.0
        self._opened: tuple[int, int] | None = None
        self._opened_after = 0
        # Of the file that holds how often ours was put aside.
        self._number: int | None = None
        # By deadlines, which are all as far from now.
        self._look_again = 0.0
        self._setup = ("PRAGMA journal_mode = WAL", f"PRAGMA synchronous = {synchronous}", *schema)
        self._timeout = timeout
        self._mutex = threading.Lock()
        # How many times it was used and all went well.
        self._uses = 0
        self._connection: sqlite3.Connection | None = None
        with _register_mutex:
            _files.add(self)

    def __enter__(self) -> Execute:
        deadline = self._lock()
        try:
            execute = (self._usable(deadline) or self._open(deadline)).execute
            _retry_while_busy(deadline, execute, "BEGIN IMMEDIATE")
        except BaseException as error:
            self._fail(error)
            raise
        return execute

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._fail(error)
            return
        assert self._connection is not None
        try:
            self._connection.execute("COMMIT")
        except BaseException as failure:
            self._fail(failure)
            raise
        self._unlock()

    def one(self, statement: str, parameters: Callable[[], Sequence[Any]]) -> Any:
        """Carry out one statement as ``rows`` does, and return its first row, or None."""
        return self.rows(statement, parameters, _first)

    def rows(
        self, statement: str, parameters: Callable[[], Sequence[Any]], read: Callable[[list[Any]], _Result]
    ) -> _Result:
        """Carry out one statement by itself and return what ``read`` makes of its rows. What it changed is committed
        then. A file of whose rows it can make nothing is damaged.

        ``parameters`` is asked for them when the file is ours, and again for each further try at one that others lock.
        A statement that only reads does not wait for writers.
        """
        deadline = self._lock()
        try:
            execute = (self._usable(deadline) or self._open(deadline)).execute
            found = _retry_while_busy(deadline, lambda: execute(statement, parameters()).fetchall())
            answer = understand(read, found)
        except BaseException as error:
            self._fail(error)
            raise
        self._unlock()
        return answer

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
        """Wait until the file is this thread's, and return until when it may wait for other processes.

        While the others of this process get on with the file nobody gives up, however many are before him: on a machine
        that is too busy each of them may take long, and the file is well.
        """
        while True:
            uses, deadline = self._uses, time.monotonic() + self._timeout
            if self._mutex.acquire(timeout=self._timeout):
                return deadline if uses == self._uses else time.monotonic() + self._timeout
            if uses == self._uses:
                raise sqlite3.OperationalError("the threads of this process wait too long for the file")

    def _unlock(self) -> None:
        """Give the file back after a use that went well."""
        self._uses += 1
        self._mutex.release()

    def _fail(self, error: BaseException) -> None:
        """Give the file back after a failure. Closing rolls back. Raises Damaged if that is what the failure means."""
        self._close()
        damaged = self._disposable and _is_damage(error, self._path)
        if damaged:
            self._condemned = self._opened, self._opened_after
        self._mutex.release()
        if damaged and not isinstance(error, Damaged):
            raise Damaged(f"the file is damaged: {type(error).__name__}") from error

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        number, self._number = self._number, None
        if number is not None:
            self._release(number)

    def _usable(self, deadline: float) -> sqlite3.Connection | None:
        """Return the open connection, unless another process has put the file aside: then it would count for itself."""
        if self._disposable and self._connection is not None and self._is_another(deadline):
            # SQLite leaves the new file's log alone when it sees that its own file was moved.
            self._close()
        return self._connection

    def _is_another(self, deadline: float) -> bool:
        """Tell whether the file is no longer the one that was opened.

        Who puts it aside says so at once. Somebody's hand that removed it is found out now and then: looking at the
        file takes as long as a good part of a statement.
        """
        assert self._number is not None
        if deadline < self._look_again and _read_number(self._number) == self._opened_after:
            return False
        self._look_again = deadline + _LOOK_SECONDS
        return identity(self._path) != self._opened

    def _open(self, deadline: float) -> sqlite3.Connection:
        if not self._disposable:
            self._connection = _retry_while_busy(deadline, self._connect)
            return self._connection
        # A file that is put aside takes its log with it; nobody may open either of them in between.
        with _alone_with(self._path, deadline) as lock:
            self._connection = self._connect_to_sound(deadline, lock)
            self._opened, self._opened_after = identity(self._path), _read_number(lock)
            self._number = _kept_open(lock)
        return self._connection

    def _connect_to_sound(self, deadline: float, lock: int) -> sqlite3.Connection:
        """Open the file, or a new one in the place of one that is damaged."""
        replaceable = time.monotonic() >= self._keep_until
        if not replaceable or (identity(self._path), _read_number(lock)) != self._condemned:
            try:
                return _retry_while_busy(deadline, self._connect)
            except Exception as error:
                if not (replaceable and _is_damage(error, self._path)):
                    raise
        _put_aside(self._path, lock)
        self._keep_until = time.monotonic() + _KEEP_SECONDS
        return _retry_while_busy(deadline, self._connect)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for statement in self._setup:
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection


def _first(rows: list[Any]) -> Any:
    return rows[0] if rows else None


def _is_damage(error: BaseException, path: str) -> bool:
    """Tell whether the file itself is wrong, of which no connection may be open here."""
    code = _code(error)
    if code == sqlite3.SQLITE_READONLY:
        return _says_read_only(path)
    # A file or log that ends too early is no trouble of the disk.
    if code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    # SQLite repeats names of a schema in what it reports, and the driver cannot make text of them.
    return isinstance(error, Damaged | UnicodeDecodeError) or str(error).startswith(_NO_TEXT)


def _code(error: BaseException) -> int:
    """Return SQLite's code for an error, 0 when the driver itself has refused something."""
    return getattr(error, "sqlite_errorcode", 0)


def _says_read_only(path: str) -> bool:
    """Tell whether the file asks by itself not to be written, which none of ours does."""
    try:
        # To close it takes from this process all locks on it, so this is for nobody who has it open.
        with open(path, "rb") as file:
            file.seek(_FORMAT_AT)
            return any(number > _LATEST_FORMAT for number in file.read(2))
    except OSError:
        return False


@contextlib.contextmanager
def _alone_with(path: str, deadline: float) -> Iterator[int]:
    """Hold the lock under which a file is opened or put aside. Gives the descriptor of its file, which holds a number:
    how often that was put aside."""
    try:
        descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise sqlite3.OperationalError(f"the lock of the file cannot be opened: {error.strerror}") from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise sqlite3.OperationalError("other processes open the file for too long") from error
                time.sleep(_PAUSE_SECONDS)
        _write_first_number(descriptor)
        yield descriptor
    finally:
        # To close it is not enough: whoever goes on reading the number keeps the file open.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _write_first_number(lock: int) -> None:
    """Let the file of a lock hold a number."""
    try:
        if os.fstat(lock).st_size < _NUMBER_BYTES:
            os.pwrite(lock, bytes(_NUMBER_BYTES), 0)
    except OSError as error:
        raise sqlite3.OperationalError(f"the lock of the file cannot be written: {error.strerror}") from error


def _read_number(lock: int) -> int:
    try:
        return int.from_bytes(os.pread(lock, _NUMBER_BYTES, 0), sys.byteorder)
    except OSError as error:
        raise sqlite3.OperationalError(f"the lock of the file cannot be read: {error.strerror}") from error


def _kept_open(lock: int) -> int:
    try:
        return os.dup(lock)
    except OSError as error:
        raise sqlite3.OperationalError(f"the lock of the file cannot be kept open: {error.strerror}") from error


def _put_aside(path: str, lock: int) -> None:
    """Rename a damaged file, in the place of an earlier one, forget its log, and let all processes know."""
    try:
        times = _read_number(lock) + 1
        os.pwrite(lock, times.to_bytes(_NUMBER_BYTES, sys.byteorder), 0)
        os.replace(path, path + ".damaged")
        for log in (path + "-wal", path + "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(log)
    except OSError as error:
        raise sqlite3.OperationalError(f"a damaged file cannot be put aside: {error.strerror}") from error
    _log.error("damaged file put aside", file=os.path.basename(path) + ".damaged")


def _retry_while_busy(deadline: float, action: Callable[..., _Result], *arguments: Any) -> _Result:
    # SQLite could wait by itself, but it sleeps up to 0.1 seconds between two attempts, so that a busy neighbour can
    # starve us for seconds; and it does not wait at all when several processes switch a new file to WAL.
    while True:
        try:
            return action(*arguments)
        except sqlite3.OperationalError as error:
            if _code(error) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
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
