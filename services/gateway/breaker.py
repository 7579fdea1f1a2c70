"""Breakers: a provider that has failed several times in a row is left alone for a while.

One for each provider key, because a key is also a way to a provider: an account, a region, an organisation. They live
in the memory of a process; each process finds out for itself. Open, a breaker lets nothing through; when its pause is
over, one call may try. Success closes it, failure begins another pause. Only what says that the provider itself is not
well counts as a failure: no answer, or a status of 5xx. A rate limit, a refused key or a refused request do not.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# Keys that were deleted while their provider failed leave a breaker behind.
_MOST_KEPT = 10_000


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    # When the pause ends, or when the trial is given up; None: closed.
    open_until: float | None = None
    trying: bool = False


class Breakers:
    """The breakers of one process, by the id of the provider key."""

    def __init__(
        self, *, failures: int, pause_seconds: float, trial_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_failures = failures
        self._pause_seconds = pause_seconds
        # A trial of which nothing was heard for so long has been forgotten.
        self._trial_seconds = trial_seconds
        self._clock = clock
        self._breakers: dict[str, _Breaker] = {}
        self._lock = threading.Lock()

    def refused_for(self, key_id: str, *, trial: bool = True) -> int:
        """Return for how many seconds the provider is to be left alone, 0 when it may be asked.

        With ``trial``, 0 may be the one trial: the caller must then report with ``succeeded`` or ``failed``.
        """
        if key_id not in self._breakers:
            return 0
        with self._lock:
            breaker = self._breakers.get(key_id)
            if breaker is None or breaker.open_until is None:
                return 0
            left = breaker.open_until - self._clock()
            if left > 0:
                return math.ceil(left)
            if trial:
                breaker.trying = True
                breaker.open_until = self._clock() + self._trial_seconds
            return 0

    def succeeded(self, key_id: str) -> None:
        """The provider answered, be it with a refusal."""
        if key_id in self._breakers:
            with self._lock:
                self._breakers.pop(key_id, None)

    def failed(self, key_id: str) -> None:
        """The provider did not answer, or is not well."""
        with self._lock:
            if len(self._breakers) >= _MOST_KEPT and key_id not in self._breakers:
                self._breakers.pop(next(iter(self._breakers)))
            breaker = self._breakers.setdefault(key_id, _Breaker())
            breaker.failures += 1
            paused = breaker.open_until is not None and not breaker.trying
            # What comes in late from calls that began before does not make the pause longer.
            if not paused and (breaker.trying or breaker.failures >= self._most_failures):
                breaker.trying = False
                breaker.open_until = self._clock() + self._pause_seconds

    def states(self) -> dict[str, str]:
        """Return ``open`` or ``half_open`` for every breaker that is not closed, by the id of the provider key."""
        with self._lock:
            now = self._clock()
            return {
                key_id: "half_open" if breaker.trying or breaker.open_until <= now else "open"
                for key_id, breaker in self._breakers.items()
                if breaker.open_until is not None
            }
