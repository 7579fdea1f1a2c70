"""Is this process able to answer calls: does it reach what it depends on?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from flask import Flask
from sqlalchemy import func, select

from models import Workspace
from models.quick import Prepared
from services import provider_keys
from services.parts import parts

_log = structlog.get_logger("readiness")

_SECONDS = 2.0
# However often it is asked, the database and the others are bothered no more often than this.
_KEPT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a part works, and a public word for how: no address, no name, no cause."""

    works: bool
    word: str = "ok"


_TOO_LATE = Finding(False, "does not answer in time")


class Readiness:
    """The checks of one process. Each gets two seconds; one that hangs is not begun again before it has ended."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._found: dict[str, Finding] = {}
        self._found_at = float("-inf")
        self._at_work: set[str] = set()

    def look(self) -> dict[str, Finding]:
        """Return what each check finds, now or within the last second."""
        with self._lock:
            if time.monotonic() - self._found_at > _KEPT_SECONDS:
                self._found = self._ask_all()
                self._found_at = time.monotonic()
            return self._found

    def _ask_all(self) -> dict[str, Finding]:
        found: dict[str, Finding] = {}
        threads = []
        for name, check in CHECKS.items():
            if name not in self._at_work:
                self._at_work.add(name)
                # A daemon, because one that hangs must not keep the process from ending.
                thread = threading.Thread(target=self._run, args=(name, check, found), daemon=True)
                thread.start()
                threads.append(thread)
        deadline = time.monotonic() + _SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return {name: found.get(name, _TOO_LATE) for name in CHECKS}

    def _run(self, name: str, check: Callable[[], Finding], found: dict[str, Finding]) -> None:
        try:
            with self._app.app_context():
                found[name] = check()
        except Exception as error:
            _log.warning("not ready", check=name, cause=type(error.__cause__ or error).__name__)
            found[name] = Finding(False, "does not answer")
        finally:
            self._at_work.discard(name)


def _database() -> Finding:
    """It answers, has our tables, and takes writes: every call to /v1 makes one."""
    quick = parts().quick
    quick.one(_ANY_WORKSPACE, {})
    fault = quick.why_no_writes()
    return Finding(fault is None, fault or "ok")


def _limiter() -> Finding:
    limits = parts().limits
    if limits.falls_back:
        # That was chosen for this case, so it is none to send callers elsewhere.
        return Finding(True, "counts in memory" if limits.in_memory else "ok")
    return Finding(True) if limits.is_up() else Finding(False, "does not answer")


def _vault() -> Finding:
    """One of the newest provider keys opens. A single damaged one is its owner's trouble, not the portal's."""
    return Finding(True) if provider_keys.some_open() else Finding(False, "opens no provider key")


CHECKS: dict[str, Callable[[], Finding]] = {"database": _database, "limiter": _limiter, "vault": _vault}

_ANY_WORKSPACE = Prepared(select(func.min(Workspace.id)))
