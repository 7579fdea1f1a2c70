"""The line in which the threads of many streams wait for their turns."""

from __future__ import annotations

import threading
from collections import deque

# So many find a place at once that on a machine with time to spare nobody waits.
_MOST_INSIDE = 4
_LONG = 4


class Line:
    """Lets a few threads go on at a time, the others in the order they came: each calls ``enter`` and then ``leave``.

    Every event of a stream wakes a thread, which then needs the interpreter. With some hundred of them after it at the
    same time, everybody's turn comes late: a new call's too, and that of whoever holds the lock of a SQLite file. So
    they stand in line for it here, and the longer the line, the fewer go on at a time. A stream that had to wait finds
    several events when it reads, and passes them on together: the busier the machine, the less it does for each event.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._inside = 0
        # Each is locked until it is its thread's turn.
        self._waiting: deque[threading.Lock] = deque()

    def enter(self) -> None:
        """Wait for the turn. Nobody may keep it for longer than it takes to read what has come."""
        with self._mutex:
            if self._inside < _MOST_INSIDE and not self._waiting:
                self._inside += 1
                return
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        called.acquire()

    def leave(self) -> None:
        """Let the next one go on, unless the line is long and others are at work."""
        with self._mutex:
            self._inside -= 1
            if self._waiting and (self._inside == 0 or len(self._waiting) < _LONG):
                self._inside += 1
                self._waiting.popleft().release()
