"""Background work: what serving processes do beside the requests, without another service.

The table of tasks is in ``services/tasks.py``. Each task has a daemon thread of its own in every serving process, so
that a mail server that hangs does not hold up the sign of life that other work depends on. Each run has an app
context, and with it a database session, of its own. Commands and tests start none of this.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from flask import Flask

from models.base import now
from services import leases, metrics

_log = structlog.get_logger("background")

# The first answers of a process come before its first background work.
_FIRST_SECONDS = (0.5, 1.5)
# Processes that were started together must not go on in step; never sooner than due.
_JITTER = (1.0, 1.1)
# How soon the work of a process that died is noticed, and how long a pause grows when a task fails again and again.
_LONGEST_LOOK_SECONDS = 30.0
_LONGEST_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work that is done again and again, ``seconds`` after it was last begun.

    ``run`` returns True when there is more to do at once; so each call can be short, in transactions that are short.
    It must bear being cut off anywhere and being begun twice. With ``once_per_fleet`` one process at a time does it,
    over all nodes, and the others see to it that it is done when that one dies; otherwise every process does it.
    """

    name: str
    seconds: float
    run: Callable[[], bool | None]
    once_per_fleet: bool = True


# While a long task is at work, its lease is kept up by another thread.
_KEEP_LEASES = Task("leases", leases.LEASE.total_seconds() / 3, leases.keep_up, once_per_fleet=False)


class Background:
    """The threads of one process."""

    def __init__(self, app: Flask, tasks: Sequence[Task]) -> None:
        self._app = app
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(task,), name=f"background {task.name}", daemon=True)
            for task in (*tasks, _KEEP_LEASES)
        ]

    def start(self) -> None:
        """Begin. The threads are daemons: none of them keeps the process from ending."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience_seconds: float = 3.0) -> None:
        """Begin nothing more, and give what is at work a moment to finish: a message in sending is not sent again."""
        self._stopping.set()
        deadline = time.monotonic() + patience_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _repeat(self, task: Task) -> None:
        failures = 0
        pause = random.uniform(*_FIRST_SECONDS)  # noqa: S311 - no secret
        while not self._stopping.wait(pause):
            try:
                self._run(task)
                failures = 0
            except Exception:
                _log.exception("background task failed", task=task.name)
                metrics.TASK_RUNS.add(task.name, "failed")
                failures += 1
            pause = _pause(task, failures)

    def _run(self, task: Task) -> None:
        """Do the task once, if it is this process's turn."""
        if not task.once_per_fleet:
            self._work_through(task)
            return
        began_at = now()
        with self._app.app_context():
            if not leases.take(task.name, task.seconds):
                return
        try:
            self._work_through(task)
        finally:
            with self._app.app_context():
                leases.give_back(task.name, began_at)

    def _work_through(self, task: Task) -> None:
        more = True
        while more and not self._stopping.is_set():
            with self._app.app_context():
                more = task.run() is True
            metrics.TASK_RUNS.add(task.name, "done")


def _pause(task: Task, failures: int) -> float:
    """Return how long to wait. Whether a shared task is due is looked at more often than it is done."""
    seconds = min(task.seconds, _LONGEST_LOOK_SECONDS) if task.once_per_fleet else task.seconds
    if failures:
        seconds = max(seconds, min(_LONGEST_RETRY_SECONDS, seconds * 2.0 ** min(failures, 10)))
    return seconds * random.uniform(*_JITTER)  # noqa: S311 - no secret
