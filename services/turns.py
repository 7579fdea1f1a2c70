"""Taking turns: so many threads at a time work with the database, in the order they came.

A plain lock goes to whoever is running when it becomes free, not to whoever has waited longest. With many calls at work
a few of them then wait many times as long as the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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
            called = threading.Lock()
            called.acquire()
            self._line.append(called)
        self._wait(called)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be in with nobody else. For one thread at a time: two would wait for each other's seats."""
        with ExitStack() as stack:
            for _ in range(self._seats):
                stack.enter_context(self)
            yield

    def __exit__(self, _kind: object = None, error: BaseException | None = None, _traceback: object = None) -> None:
        with self._mutex:
            if self._line:
                if not isinstance(error, DatabaseUnavailable):
                    self._ended_well += 1
                self._line.popleft().release()
            else:
                self._free += 1

    def _wait(self, called: threading.Lock) -> None:
        ended_well = -1
        while ended_well != self._ended_well:
            ended_well = self._ended_well
            if called.acquire(timeout=self._wait_seconds):
                return
        self._leave(called)

    def _leave(self, called: threading.Lock) -> None:
        with self._mutex:
            if called not in self._line:
                # It was called at the last moment.
                return
            self._line.remove(called)
        raise DatabaseAway
