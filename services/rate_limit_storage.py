"""A storage for the ``limits`` library in one SQLite file: one count for all threads and processes of a machine.

Each hit is one short write transaction, and reads the clock inside it, so that hits are stored in the order of their
times. The file is a cache of the last minutes, not a record: it is written without waiting for the disk
(``synchronous=OFF``, which a killed process does not feel), and deleting it while the portal is stopped only forgets
counts.

A clock that is set back must lock nobody out. Whoever finds a time later than now in a row, moves that row back to now:
counts stay, and last at most one window longer.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from math import floor
from typing import Any, NamedTuple, Self, TypeVar, cast
from urllib.parse import parse_qsl

from limits.errors import ConfigurationError
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow

from services.sqlite_file import MEMORY, Execute, SQLiteFile, is_damage

_Method = TypeVar("_Method", bound=Callable[..., Any])

# All times are Unix seconds, except hits.at: seconds after its window's start, so that moving the start back moves
# all hits of the window with it. Numbers count the hits of a window: [first, next) were alive at the latest hit, and a
# hit of amount n is one row that takes n numbers. `seconds` is the length of the row's window.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS counters (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        seconds INTEGER NOT NULL, start REAL NOT NULL, count INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS sliding_counters (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        seconds INTEGER NOT NULL, start REAL NOT NULL, previous INTEGER NOT NULL, current INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS windows (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        seconds INTEGER NOT NULL, start REAL NOT NULL, latest REAL NOT NULL,
        first INTEGER NOT NULL, next INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS hits (window INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (window, number)) WITHOUT ROWID""",
)

_COUNT = """
    INSERT INTO counters (key, seconds, start, count) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET seconds = excluded.seconds,
        count = excluded.count + CASE WHEN start + seconds <= excluded.start THEN 0 ELSE count END,
        start = CASE WHEN start + seconds <= excluded.start THEN excluded.start ELSE min(start, excluded.start) END
    RETURNING count"""

_STORE_SLIDING = """
    INSERT INTO sliding_counters (key, seconds, start, previous, current) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET seconds = excluded.seconds, start = excluded.start,
        previous = excluded.previous, current = excluded.current"""

# The window, and number and time of its oldest living hit; if there is none, those of a hit that came now. One
# statement, so that a reader sees all in one state. Of the key, the time now, and the length of the window.
_FIND_WINDOW = """
    SELECT id, start, latest, next, coalesce(number, next), coalesce(at, max(?2, latest) - start) FROM windows
    LEFT JOIN hits ON window = id AND number = (
        SELECT number FROM hits WHERE window = id AND number >= first AND at > max(?2, latest) - start - ?3
        ORDER BY number LIMIT 1)
    WHERE key = ?1"""

_BEGIN_WINDOW = "INSERT INTO windows (seconds, start, latest, first, next, key) VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
_STORE_WINDOW = "UPDATE windows SET seconds = ?, start = ?, latest = ?, first = ?, next = ? WHERE id = ?"

# Old hits are trimmed once in _TRIM_EVERY hits of a window, and at most _TRIM_MOST at once.
_TRIM_EVERY = 64
_TRIM_MOST = 256
_TRIM = """
    DELETE FROM hits WHERE window = ?1 AND number < ?2
        AND number < (SELECT min(number) FROM hits WHERE window = ?1) + ?3"""

# Once in _SWEEP_EVERY writes a process looks at the next rows of each table, moves those in the future back to now and
# removes those two windows old: a window when its hits are gone, and of these not too many at once. A table is named
# by the statement that finds its next rows.
_SWEEP_EVERY = 64
_SWEEP_ROWS = 64
_SWEEPS = {
    "SELECT id FROM counters WHERE id > ? ORDER BY id LIMIT ?": (
        "UPDATE counters SET start = :now WHERE id BETWEEN :low AND :high AND start > :now",
        "DELETE FROM counters WHERE id BETWEEN :low AND :high AND start + 2 * seconds <= :now",
    ),
    "SELECT id FROM sliding_counters WHERE id > ? ORDER BY id LIMIT ?": (
        """UPDATE sliding_counters SET start = CAST(:now AS INTEGER) / seconds * seconds
            WHERE id BETWEEN :low AND :high AND start > :now""",
        "DELETE FROM sliding_counters WHERE id BETWEEN :low AND :high AND start + 2 * seconds <= :now",
    ),
    "SELECT id FROM windows WHERE id > ? ORDER BY id LIMIT ?": (
        """UPDATE windows SET start = start - (latest - :now), latest = :now
            WHERE id BETWEEN :low AND :high AND latest > :now""",
        # CROSS keeps SQLite from reading all hits first.
        """DELETE FROM hits WHERE (window, number) IN (
            SELECT window, number FROM windows CROSS JOIN hits ON window = id
            WHERE id BETWEEN :low AND :high AND latest + 2 * seconds <= :now LIMIT 512)""",
        """DELETE FROM windows WHERE id BETWEEN :low AND :high AND latest + 2 * seconds <= :now
            AND NOT EXISTS (SELECT 1 FROM hits WHERE window = id)""",
    ),
}


_IN_MEMORY = "in memory"


class Window(NamedTuple):
    """A moving window as one transaction saw it: was a hit allowed, hits in it now, time of the oldest."""

    allowed: bool
    hits: int
    oldest_at: float


def _again_after_damage(method: _Method) -> _Method:
    """Let a method that finds the file damaged begin again, once, with the file that takes its place."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return method(*args, **kwargs)

    return cast(_Method, wrapped)


class SQLiteStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Fixed window, exact moving window and sliding window counter in one SQLite file.

    The windows of the sliding counter are timestamped: cut by the clock, as those of limits' own memory storage are, so
    that all keys of a length turn at the same moments. Here a key keeps both of its windows in one row.

    The address is written as SQLAlchemy writes it: ``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``.
    ``timeout``, also ``?timeout=2`` in the address, is how many seconds a hit waits for a locked file.

    The file is opened at the first use, so that one that cannot be used stops requests and not the start, and a
    repaired one is taken without a restart. A damaged one is put aside and begun anew: counts may be lost, service may
    not. Every failure is a ``sqlite3.Error``.
    """

    STORAGE_SCHEME = ["sqlite"]  # noqa: RUF012 - declared so by limits

    def __init__(self, uri: str, wrap_exceptions: bool = False, timeout: float = 5.0) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        path, timeout = (MEMORY, timeout) if uri == _IN_MEMORY else _parse(uri, timeout)
        self._file = SQLiteFile(path, _SCHEMA, timeout=timeout, synchronous="OFF", disposable=True)
        self._writes = 0
        self._swept_to = dict.fromkeys(_SWEEPS, 0)

    @classmethod
    def in_memory(cls) -> Self:
        """Make a storage that counts for this process alone."""
        return cls(_IN_MEMORY)

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._file.close()

    @_again_after_damage
    def check(self) -> bool:
        """Tell whether the file can be written to now."""
        try:
            with self._file as execute:
                # The number means nothing to us: setting it is the smallest true write.
                execute("PRAGMA user_version = 1")
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            return False
        return True

    @_again_after_damage
    def reset(self) -> int:
        """Forget everything. Returns the number of counters and windows removed."""
        with self._file as execute:
            execute("DELETE FROM hits")
            removed = execute("DELETE FROM windows").rowcount
            removed += execute("DELETE FROM counters").rowcount
            removed += execute("DELETE FROM sliding_counters").rowcount
        return removed

    @_again_after_damage
    def clear(self, key: str) -> None:
        """Forget ``key`` in all three strategies."""
        with self._file as execute:
            execute("DELETE FROM hits WHERE window = (SELECT id FROM windows WHERE key = ?)", (key,))
            execute("DELETE FROM windows WHERE key = ?", (key,))
            execute("DELETE FROM counters WHERE key = ?", (key,))
            execute("DELETE FROM sliding_counters WHERE key = ?", (key,))

    # Fixed window

    @_again_after_damage
    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add ``amount`` to the counter, which lives ``expiry`` seconds from its first hit. Returns the new count."""
        with self._file as execute:
            now = time.time()
            self._sweep(execute, now)
            count: int = execute(_COUNT, (key, expiry, now, amount)).fetchone()[0]
            return count

    def get(self, key: str) -> int:
        """Return the count, 0 if there is none."""
        return self._counter(key)[0]

    def get_expiry(self, key: str) -> float:
        """Return the time at which the counter ends: now, if there is none."""
        return self._counter(key)[1]

    @_again_after_damage
    def _counter(self, key: str) -> tuple[int, float]:
        now = time.time()
        row = self._file.read_one("SELECT start, seconds, count FROM counters WHERE key = ?", (key,))
        if row is None or row[0] + row[1] <= now:
            return 0, now
        start, seconds, count = row
        if start > now:
            # Adding nothing moves the counter back to now.
            self.incr(key, seconds, 0)
        return count, min(start, now) + seconds

    # Moving window

    @_again_after_damage
    def take(self, key: str, limit: int, seconds: int, amount: int = 1) -> Window:
        """Count ``amount`` hits in the window of ``seconds`` that ends now, if it then holds no more than ``limit``."""
        with self._file as execute:
            now = time.time()
            self._sweep(execute, now)
            found = execute(_FIND_WINDOW, (key, now, seconds)).fetchone()
            window_id, start, latest, number, first, oldest = found or (None, now, now, 0, 0, 0.0)
            # After the clock was set back, all hits of the window move back with it.
            start -= max(0.0, latest - now)
            allowed = number + amount - first <= limit
            following = number + amount if allowed else number
            row = (seconds, start, now, first, following)
            if window_id is None:
                (window_id,) = execute(_BEGIN_WINDOW, (*row, key)).fetchone()
            elif allowed or latest > now:
                execute(_STORE_WINDOW, (*row, window_id))
            if following > number:
                execute("INSERT INTO hits VALUES (?, ?, ?)", (window_id, number, now - start))
                if number // _TRIM_EVERY != following // _TRIM_EVERY:
                    execute(_TRIM, (window_id, first, _TRIM_MOST))
        return Window(allowed, following - first, start + oldest)

    @_again_after_damage
    def look(self, key: str, limit: int, seconds: int) -> Window:
        """Tell what ``take`` would find, without counting."""
        now = time.time()
        found = self._file.read_one(_FIND_WINDOW, (key, now, seconds))
        _, start, latest, number, first, oldest = found or (None, now, now, 0, 0, 0.0)
        # Less than a second is no clock set back, but a hit that came since we looked at the clock.
        if latest > now + 1:
            # Taking nothing moves the window back to now.
            self.take(key, limit, seconds, 0)
        start -= max(0.0, latest - now)
        return Window(number - first < limit, number - first, start + oldest)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` hits if the moving window has room for all of them."""
        return self.take(key, limit, expiry, amount).allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest hit in the window (now, if it is empty) and the number of hits."""
        window = self.look(key, limit, expiry)
        return window.oldest_at, window.hits

    # Sliding window counter

    @_again_after_damage
    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` hits if the weighted count of this window and the one before has room for all of them."""
        with self._file as execute:
            now = time.time()
            self._sweep(execute, now)
            row = execute("SELECT start, previous, current FROM sliding_counters WHERE key = ?", (key,)).fetchone()
            start, previous, current = _roll(row, expiry, now)
            weighted = previous * (start + expiry - now) / expiry + current
            allowed = floor(weighted) + amount <= limit
            if allowed:
                current += amount
            execute(_STORE_SLIDING, (key, expiry, start, previous, current))
        return allowed

    @_again_after_damage
    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return count and seconds to live of the previous window, then of the current one.

        The current window lives on as the previous one, hence for up to twice ``expiry``.
        """
        now = time.time()
        row = self._file.read_one("SELECT start, previous, current FROM sliding_counters WHERE key = ?", (key,))
        if row and row[0] > now:
            # Asking for nothing moves the counter back to now.
            self.acquire_sliding_window_entry(key, 0, expiry, 0)
        start, previous, current = _roll(row, expiry, now)
        left = start + expiry - now
        return previous, left if previous else 0.0, current, left + expiry if current else 0.0

    @_again_after_damage
    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget the sliding window counter of ``key``."""
        with self._file as execute:
            execute("DELETE FROM sliding_counters WHERE key = ?", (key,))

    def _sweep(self, execute: Execute, now: float) -> None:
        self._writes += 1
        if self._writes % _SWEEP_EVERY:
            return
        for find, changes in _SWEEPS.items():
            ids = [row[0] for row in execute(find, (self._swept_to[find], _SWEEP_ROWS))]
            self._swept_to[find] = ids[-1] if len(ids) == _SWEEP_ROWS else 0
            if ids:
                for change in changes:
                    execute(change, {"low": ids[0], "high": ids[-1], "now": now})


def _roll(row: tuple[float, int, int] | None, seconds: int, now: float) -> tuple[float, int, int]:
    """Bring (start, previous, current) of a sliding window counter to the window that holds ``now``."""
    start = now // seconds * seconds
    if row is None or row[0] < start - seconds:
        return start, 0, 0
    if row[0] < start:
        return start, row[2], 0
    # Also after the clock was set back: the counts stay, and last until the window ends.
    return start, row[1], row[2]


def _parse(uri: str, timeout: float) -> tuple[str, float]:
    """Return path and timeout of an address. The path is taken as it stands, without percent-decoding."""
    address, _, query = uri.partition("?")
    path = address.removeprefix("sqlite:///")
    if path == address or path in ("", ":memory:"):
        raise ConfigurationError("the address of a SQLite rate limit storage is sqlite:/// and the path of a file")
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        timeout = float(options.pop("timeout", timeout))
    except ValueError:
        timeout = -1.0
    if options or not 0 <= timeout <= 3600:
        raise ConfigurationError("a SQLite rate limit storage has one option, timeout, in seconds")
    return path, timeout
