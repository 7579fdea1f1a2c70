"""Taking turns: so many threads at a time work with the database, in the order they came.

A plain lock goes to whoever is running when it becomes free, not to whoever has waited longest. With many calls at work
a few of them then wait many times as long as the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from models.quick import DatabaseUnavailable
from services.errors import DatabaseAway

# As many as there are connections to PostgreSQL. SQLite has one for all, but with one seat everybody in line is woken
# only to find others at work, and a fifth fewer calls are served. Among so few nobody falls far behind.
SEATS = 8


class Turns:
    """A block that at most ``seats`` threads of the process are in; the others wait in line::

        with turns:
            ...

    A block must not be entered within another. Whoever has waited ``wait_seconds``, in which no block ended as it
    should, gets DatabaseAway: of many calls at once some wait for longer, and the database is well.
    """

    def __init__(self, seats: int, wait_seconds: float) -> None:
        self._seats = self._free = seats
        self._wait_seconds = wait_seconds
        self._mutex = threading.Lock()
        self._ended_well = 0
        # Each is locked until it is its thread's turn.
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if self._free:
                self._free -= 1
                return
            called = self._line_up()
        self._wait(called)

    def __exit__(self, _kind: object = None, error: BaseException | None = None, _traceback: object = None) -> None:
        with self._mutex:
            if not isinstance(error, DatabaseUnavailable):
                self._ended_well += 1
            self._give_back()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be in with nobody else. For one thread at a time: two would wait for each other's seats."""
        with self._mutex:
            taken, self._free = self._free, 0
            # Side by side in the line, so that it is waited for once and not once for each seat.
            line = deque([self._line_up() for _ in range(self._seats - taken)])
        try:
            while line:
                called = line.popleft()
                self._wait(called)
                taken += 1
            yield
        finally:
            taken += sum(not self._left(called) for called in line)
            with self._mutex:
                for _ in range(taken):
                    self._give_back()

    def _line_up(self) -> threading.Lock:
        called = threading.Lock()
        called.acquire()
        self._line.append(called)
        return called

    def _give_back(self) -> None:
        if self._line:
            self._line.popleft().release()
        else:
            self._free += 1

    def _wait(self, called: threading.Lock) -> None:
        ended_well = -1
        while ended_well != self._ended_well:
            ended_well = self._ended_well
            if called.acquire(timeout=self._wait_seconds):
                return
        if self._left(called):
            raise DatabaseAway

    def _left(self, called: threading.Lock) -> bool:
        """Leave the line. False: it was called at the last moment, and has a seat."""
        with self._mutex:
            if called not in self._line:
                return False
            self._line.remove(called)
            return True
