"""A storage for the ``limits`` library in one SQLite file: one count for all threads and processes of a machine.

A hit is one statement, in however many windows it counts: in all of them or in none, and only if no later hit is there
already, so that hits are stored in the order of their times. The file is a cache of the last minutes, not a record: it
is written without waiting for the disk (``synchronous=OFF``, which a killed process does not feel), and deleting it
while the portal is stopped only forgets counts.

A clock that is set back must lock nobody out. Whoever finds a time later than now in a row, moves that row back to now:
counts stay, and last at most one window longer.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable, Sequence
from math import floor
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar, cast
from urllib.parse import parse_qsl, unquote

from limits.errors import ConfigurationError
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow

from services.sqlite_file import MEMORY, Damaged, Execute, SQLiteFile, understand

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Result = TypeVar("_Result")

# The windows that a hit counts in, each once, with the limit that it must keep to.
Asked: TypeAlias = Sequence[tuple[str, int]]
# What ``_find`` finds of a window: key, hits, the time of the hit that has to leave, and of the newest.
_Found: TypeAlias = tuple[str, int, float, float]

# All times are Unix seconds, except those of moving_hits: seconds after their window's start, so that moving the start
# back moves all hits of the window with it. A hit of amount n is one row, which takes the numbers [number, next) of its
# window; `first` and `oldest` are number and time of the oldest hit that was alive when it came. So the newest row
# tells all of a window, and a hit is one insertion. `seconds` is the length of the row's window.
#
# While a machine is upgraded, portals of two versions have the file open. A table that changes therefore gets another
# name, and nobody removes those of other versions: who misses a column or a table of his own takes it for damage.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS counters (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        seconds INTEGER NOT NULL, start REAL NOT NULL, count INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS sliding_counters (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        seconds INTEGER NOT NULL, start REAL NOT NULL, previous INTEGER NOT NULL, current INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS moving_windows (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        seconds INTEGER NOT NULL, start REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS moving_hits (window INTEGER NOT NULL, number INTEGER NOT NULL, next INTEGER NOT NULL,
        first INTEGER NOT NULL, oldest REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (window, number)) WITHOUT ROWID""",
)

_COUNT = """
    INSERT INTO counters (key, seconds, start, count) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET seconds = excluded.seconds,
        count = excluded.count + CASE WHEN start + seconds <= excluded.start THEN 0 ELSE count END,
        start = CASE WHEN start + seconds <= excluded.start THEN excluded.start ELSE min(start, excluded.start) END
    RETURNING count"""

_FIND_COUNT = "SELECT start, seconds, count FROM counters WHERE key = ?"

_FIND_SLIDING = "SELECT start, previous, current FROM sliding_counters WHERE key = ?"
_STORE_SLIDING = """
    INSERT INTO sliding_counters (key, seconds, start, previous, current) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET seconds = excluded.seconds, start = excluded.start,
        previous = excluded.previous, current = excluded.current"""


def _windows(number: int) -> str:
    """Return a query for the windows of ``number`` keys as they are at the time ?1, of the length ?2. The keys are ?4,
    ?6 ..., each followed by the limit ``most`` that it is asked for.

    `total` is the number of the next hit, `first` and `oldest` are those of the oldest living one, or of one that came
    now; `latest` is when the newest came. When that has left the window all have, and none of them is looked at.
    """
    asked = ", ".join(f"(?{place}, ?{place + 1})" for place in range(4, 4 + 2 * number, 2))
    return f"""
        SELECT found.id, key, most, start, total, latest,
            coalesce(alive.number, total) AS first, coalesce(alive.at, ?1 - start) AS oldest
        FROM (
            SELECT moving_windows.id, key, asked.column2 AS most, start, coalesce(next, 0) AS total,
                first AS from_number, coalesce(at, ?1 - start) AS latest
            FROM (VALUES {asked}) AS asked CROSS JOIN moving_windows ON key = asked.column1 LEFT JOIN moving_hits
                ON window = id AND number = (SELECT max(number) FROM moving_hits WHERE window = id)
            WHERE seconds = ?2
        ) AS found
        LEFT JOIN moving_hits AS alive ON window = found.id AND number = CASE WHEN latest > ?1 - start - ?2 THEN (
            SELECT number FROM moving_hits
            WHERE window = found.id AND number >= from_number AND at > ?1 - start - ?2 ORDER BY number LIMIT 1) END"""  # noqa: S608 - made of what stands here


@functools.cache
def _take(number: int) -> str:
    """Return the statement that adds a hit of the amount ?3 to so many windows, if all have room for it.

    Nothing is added, and no row comes back, when one has none, or when one needs more work first: it is not there yet,
    or the clock was set back. By less than a millisecond it was not: another process's hit came since we looked at the
    clock. An oldest hit that is later than the newest is damage, which that work finds.
    """
    has_room = "total + ?3 - first <= most AND latest <= ?1 - start + 0.001 AND oldest <= ?1 - start + 0.001"
    windows, key = f"({_windows(number)}) WHERE {has_room}", "?4"
    if number > 1:
        # For one window this would take half as long again.
        key = "(SELECT key FROM moving_windows WHERE id = window)"
        counted = f"SELECT *, sum({has_room}) OVER () AS with_room FROM ({_windows(number)})"  # noqa: S608
        windows = f"({counted}) WHERE with_room = {number}"
    return f"""
        INSERT INTO moving_hits (window, number, next, first, oldest, at)
        SELECT id, total, total + ?3, first, oldest, max(latest, ?1 - start) FROM {windows}
        RETURNING {key}, window, number, next, first, ?1 + oldest - at"""  # noqa: S608


@functools.cache
def _find(number: int) -> str:
    """Return the query for so many windows: hits, the time of the hit that has to leave for ?3 more, and the newest."""
    return f"""
        SELECT key, total - found.first, start + coalesce(
            (SELECT at FROM moving_hits
                WHERE window = id AND number BETWEEN found.first AND max(found.first, total + ?3 - most - 1)
                ORDER BY number DESC LIMIT 1),
            found.oldest), start + latest
        FROM ({_windows(number)}) AS found"""  # noqa: S608


_BEGIN_WINDOW = """
    INSERT INTO moving_windows (key, start, seconds) VALUES (?1, ?2, ?3)
    ON CONFLICT (key) DO UPDATE SET seconds = excluded.seconds"""
# After the clock was set back, all hits of a window move back with it.
_LATEST = "(SELECT at FROM moving_hits WHERE window = id ORDER BY number DESC LIMIT 1)"
_SET_BACK = f"UPDATE moving_windows SET start = ?2 - {_LATEST} WHERE key = ?1 AND start + {_LATEST} > ?2"  # noqa: S608

# Old hits are trimmed once in _TRIM_EVERY hits of a window, and at most _TRIM_MOST at once.
_TRIM_EVERY = 64
_TRIM_MOST = 256
_TRIM = """
    DELETE FROM moving_hits WHERE window = ?1
        AND number < min(?2, (SELECT min(number) FROM moving_hits WHERE window = ?1) + ?3)"""

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
    "SELECT id FROM moving_windows WHERE id > ? ORDER BY id LIMIT ?": (
        f"""UPDATE moving_windows SET start = :now - {_LATEST}
            WHERE id BETWEEN :low AND :high AND start + {_LATEST} > :now""",  # noqa: S608
        # CROSS keeps SQLite from reading all hits first. The newest hit goes last: it tells all of its window.
        f"""DELETE FROM moving_hits WHERE (window, number) IN (
            SELECT window, number FROM moving_windows CROSS JOIN moving_hits ON window = id
            WHERE id BETWEEN :low AND :high AND start + {_LATEST} + 2 * seconds <= :now
            ORDER BY window, number LIMIT 512)""",  # noqa: S608
        """DELETE FROM moving_windows WHERE id BETWEEN :low AND :high AND start + 2 * seconds <= :now
            AND NOT EXISTS (SELECT 1 FROM moving_hits WHERE window = id)""",
    ),
}


_IN_MEMORY = "in memory"
# What a check counts in, always within a limit.
_CHECKED = [("check", 1), ("check of two", 1)]


class Window(NamedTuple):
    """A moving window as one transaction saw it: had it room for a hit, hits in it now, and when that hit came which
    has to leave it before there is room: the oldest, as long as there is."""

    allowed: bool
    hits: int
    leaving_at: float


def _again_after_damage(method: _Method) -> _Method:
    """Let a method that finds the file damaged begin again, once, with the file that takes its place."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Damaged:
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
        """Tell whether hits are counted now: by some, each of which is taken back."""
        try:
            with self._file as execute:
                self._try(execute)
        except Damaged:
            raise
        except sqlite3.Error:
            return False
        return True

    def _try(self, execute: Execute) -> None:
        """Do all that hits do, and leave nothing behind."""
        now = time.time()
        for asked in (_CHECKED[:1], _CHECKED):
            _take_in_steps(execute, asked, 1, 1)
            for key, _ in asked:
                _clear(execute, key)
        (key, _), *_ = _CHECKED
        execute(_TRIM, (0, 0, _TRIM_MOST))
        execute(_COUNT, (key, 1, now, 1)).fetchall()
        execute(_FIND_COUNT, (key,)).fetchall()
        execute(_STORE_SLIDING, (key, 1, now, 0, 1))
        execute(_FIND_SLIDING, (key,)).fetchall()
        _clear(execute, key)
        self._sweep(execute, now)

    @_again_after_damage
    def reset(self) -> int:
        """Forget everything. Returns the number of counters and windows removed."""
        with self._file as execute:
            execute("DELETE FROM moving_hits")
            removed = execute("DELETE FROM moving_windows").rowcount
            removed += execute("DELETE FROM counters").rowcount
            removed += execute("DELETE FROM sliding_counters").rowcount
        return removed

    @_again_after_damage
    def clear(self, key: str) -> None:
        """Forget ``key`` in all three strategies."""
        with self._file as execute:
            _clear(execute, key)

    # Fixed window

    @_again_after_damage
    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add ``amount`` to the counter, which lives ``expiry`` seconds from its first hit. Returns the new count."""
        self._sweep_now_and_then()
        return self._file.rows(_COUNT, lambda: (key, expiry, time.time(), amount), lambda rows: _whole(rows[0][0]))

    def get(self, key: str) -> int:
        """Return the count, 0 if there is none."""
        return self._counter(key)[0]

    def get_expiry(self, key: str) -> float:
        """Return the time at which the counter ends: now, if there is none."""
        return self._counter(key)[1]

    @_again_after_damage
    def _counter(self, key: str) -> tuple[int, float]:
        now = time.time()
        start, seconds, count = self._file.rows(_FIND_COUNT, lambda: (key,), _read_counter) or (now, 0, 0)
        if start + seconds <= now:
            return 0, now
        if start > now:
            # Adding nothing moves the counter back to now.
            self.incr(key, seconds, 0)
        return count, min(start, now) + seconds

    # Moving window

    @_again_after_damage
    def take(self, asked: Asked, seconds: int, amount: int = 1) -> list[Window]:
        """Count ``amount`` hits in each of the windows of ``seconds`` that end now, if none then holds more than its
        limit; else in none of them."""
        self._sweep_now_and_then()
        if amount:
            taken, overdue = self._rows(_take(len(asked)), asked, seconds, amount, lambda rows: _taken(asked, rows))
            for window_id, first in overdue:
                self._trim(window_id, first)
            if taken:
                return taken
        return self._refuse(asked, seconds, amount) or self._take_in_steps(asked, seconds, amount)

    def _trim(self, window_id: int, first: int) -> None:
        self._file.one(_TRIM, lambda: (window_id, first, _TRIM_MOST))

    def _refuse(self, asked: Asked, seconds: int, amount: int) -> list[Window] | None:
        """Return the windows if one has no room for so many, None if all may have."""
        now = time.time()

        def read(rows: list[_Found]) -> list[Window] | None:
            found = _sound(rows, seconds, now)
            if len(found) < len(asked) or any(latest_at > now + 0.001 for *_, latest_at in found):
                return None
            windows = _in_order(asked, found, amount)
            return None if all(window.allowed for window in windows) else windows

        return self._rows(_find(len(asked)), asked, seconds, max(1, amount), read, now)

    def _take_in_steps(self, asked: Asked, seconds: int, amount: int) -> list[Window]:
        with self._file as execute:
            return _take_in_steps(execute, asked, seconds, amount)

    @_again_after_damage
    def look(self, asked: Asked, seconds: int) -> list[Window]:
        """Tell what ``take`` would find for one hit, without counting."""
        now = time.time()
        found = self._rows(_find(len(asked)), asked, seconds, 1, lambda rows: _sound(rows, seconds, now), now)
        # Less than a second is no clock set back, but a hit that came since we looked at the clock.
        if any(latest_at > now + 1 for *_, latest_at in found):
            # Taking nothing moves the windows back to now.
            windows = self._take_in_steps(asked, seconds, 0)
            return [w._replace(allowed=w.hits < limit) for w, (_, limit) in zip(windows, asked, strict=True)]
        nothing = [(key, 0, now, now) for key, _ in asked]
        moved = [(key, hits, at - max(0.0, latest_at - now), now) for key, hits, at, latest_at in found]
        return _in_order(asked, nothing + moved, 1)

    def _rows(
        self,
        statement: str,
        asked: Asked,
        seconds: int,
        amount: int,
        read: Callable[[list[Any]], _Result],
        now: float | None = None,
    ) -> _Result:
        pairs = [value for pair in asked for value in pair]
        return self._file.rows(statement, lambda: (now or time.time(), seconds, amount, *pairs), read)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` hits if the moving window has room for all of them."""
        return self.take([(key, limit)], expiry, amount)[0].allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest hit in the window (now, if it is empty) and the number of hits."""
        (window,) = self.look([(key, limit)], expiry)
        return window.leaving_at, window.hits

    # Sliding window counter

    @_again_after_damage
    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` hits if the weighted count of this window and the one before has room for all of them."""
        self._sweep_now_and_then()
        with self._file as execute:
            now = time.time()
            row = understand(_read_sliding, execute(_FIND_SLIDING, (key,)).fetchall())
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
        row = self._file.rows(_FIND_SLIDING, lambda: (key,), _read_sliding)
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

    def _sweep_now_and_then(self) -> None:
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            with self._file as execute:
                self._sweep(execute, time.time())

    def _sweep(self, execute: Execute, now: float) -> None:
        for find, changes in _SWEEPS.items():
            ids = [row[0] for row in execute(find, (self._swept_to[find], _SWEEP_ROWS))]
            self._swept_to[find] = ids[-1] if len(ids) == _SWEEP_ROWS else 0
            if ids:
                for change in changes:
                    execute(change, {"low": ids[0], "high": ids[-1], "now": now})


def _clear(execute: Execute, key: str) -> None:
    execute("DELETE FROM moving_hits WHERE window = (SELECT id FROM moving_windows WHERE key = ?)", (key,))
    execute("DELETE FROM moving_windows WHERE key = ?", (key,))
    execute("DELETE FROM counters WHERE key = ?", (key,))
    execute("DELETE FROM sliding_counters WHERE key = ?", (key,))


def _take_in_steps(execute: Execute, asked: Asked, seconds: int, amount: int) -> list[Window]:
    """Take where a window has to be begun first, or moved back with the clock."""
    number, pairs = len(asked), [value for pair in asked for value in pair]
    now = time.time()
    for key, _ in asked:
        execute(_BEGIN_WINDOW, (key, now, seconds))
        execute(_SET_BACK, (key, now))
    taken = bool(amount) and bool(execute(_take(number), (now, seconds, amount, *pairs)).fetchall())
    more = 1 if taken else max(1, amount)

    def read(rows: list[_Found]) -> list[Window]:
        windows = _in_order(asked, _sound(rows, seconds, now), amount)
        if amount and not taken and all(window.allowed for window in windows):
            raise ValueError("there is room, and nothing was taken")
        return [window._replace(allowed=True) for window in windows] if taken else windows

    return understand(read, execute(_find(number), (now, seconds, more, *pairs)).fetchall())


# How the rows are read, each within `understand`.


def _taken(asked: Asked, rows: list[Any]) -> tuple[list[Window], list[tuple[int, int]]]:
    """Return the windows in the order in which they were asked for, and those that are due to be trimmed, each with
    the number of its oldest hit. None of either, if nothing was taken."""
    found, overdue = {}, []
    for key, window_id, number, following, first, oldest_at in rows:
        if oldest_at is None:
            raise TypeError("a window began at no time")
        if number // _TRIM_EVERY != following // _TRIM_EVERY:
            overdue.append((window_id, first))
        found[key] = Window(True, following - first, oldest_at)
    return [found[key] for key, _ in asked] if rows else [], overdue


def _sound(found: list[_Found], seconds: int, now: float) -> list[_Found]:
    """Return what ``_find`` found at the time ``now``."""
    for _, hits, leaving_at, latest_at in found:
        _whole(hits)
        # A second for what floating point loses, far from the start of a window.
        if not (hits >= 0 and now - seconds - 1 <= leaving_at <= max(now, latest_at) + 1):
            raise ValueError("no hit of this window can have come then")
    return found


def _in_order(asked: Asked, found: list[_Found], amount: int) -> list[Window]:
    """Return the windows that ``_find`` found in the order in which they were asked for."""
    there = {key: (hits, leaving_at) for key, hits, leaving_at, _ in found}
    return [Window(there[key][0] + amount <= limit, *there[key]) for key, limit in asked]


def _read_counter(rows: list[Any]) -> tuple[float, int, int] | None:
    for start, seconds, count in rows:
        return float(start), _whole(seconds), _whole(count)
    return None


def _read_sliding(rows: list[Any]) -> tuple[float, int, int] | None:
    for start, previous, current in rows:
        return float(start), _whole(previous), _whole(current)
    return None


def _whole(number: Any) -> int:
    if not isinstance(number, int):
        raise TypeError("a count is a whole number")
    return number


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
    """Return path and timeout of an address. ``%3F`` in its path is a question mark, as in the database's."""
    address, _, query = uri.partition("?")
    path = unquote(address.removeprefix("sqlite:///"))
    if not address.startswith("sqlite:///") or path in ("", ":memory:"):
        raise ConfigurationError("the address of a SQLite rate limit storage is sqlite:/// and the path of a file")
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        timeout = float(options.pop("timeout", timeout))
    except ValueError:
        timeout = -1.0
    if options or not 0 <= timeout <= 3600:
        raise ConfigurationError("a SQLite rate limit storage has one option, timeout, in seconds")
    return path, timeout
