"""Rate limits: how many requests a name may make in any 60 seconds.

The count is exact: a moving window over the last 60 seconds, one for all processes that share the storage. A refused
request is not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from limits import RateLimitItemPerMinute
from limits.errors import ConfigurationError, StorageError
from limits.storage import MovingWindowSupport, Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

# Importing the class registers the scheme "sqlite" with limits.
from services.rate_limit_storage import SQLiteStorage

WINDOW_SECONDS = 60

_REDIS_SCHEMES = ("redis", "rediss", "redis+unix")
_REDIS_TIMEOUT_SECONDS = 2.0


class StoreUnavailable(Exception):
    """The storage cannot count at the moment: locked, read-only, damaged, full or out of reach."""


@dataclass(frozen=True, slots=True)
class RateState:
    """The answer to a request, and what the rate limit headers tell.

    ``reset_at`` is the time, in Unix seconds, at which the oldest counted request leaves the window and one more
    becomes possible. If none is counted, it is 60 seconds from now.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at: float

    @property
    def retry_after(self) -> int:
        """Whole seconds from now until ``reset_at``, rounded up, at least 1."""
        return max(1, ceil(self.reset_at - time.time()))


class RateLimits:
    """Counts requests by name. A name may be any text but the empty one; each limit of a name has its own count."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._strategy = MovingWindowRateLimiter(storage)
        self._failures = _failures_of(storage)

    def hit(self, name: str, limit: int, cost: int = 1) -> RateState:
        """Count a request under ``name`` if the last 60 seconds have room for it; ``cost`` is how many it counts as.

        Raises StoreUnavailable, and ValueError for an empty name.
        """
        name = _checked(name)
        item = _item(limit)
        try:
            if isinstance(self._storage, SQLiteStorage):
                window = self._storage.take(item.key_for(name), limit, WINDOW_SECONDS, cost)
                return _state(window.allowed, limit, limit - window.hits, window.oldest_at + WINDOW_SECONDS)
            allowed = self._strategy.hit(item, name, cost=cost)
            stats = self._strategy.get_window_stats(item, name)
        except self._failures as error:
            raise StoreUnavailable("the rate limit storage failed") from error
        return _state(allowed, limit, stats.remaining if allowed else 0, stats.reset_time)

    def peek(self, name: str, limit: int) -> RateState:
        """Tell what ``hit`` would find, without counting. ``allowed`` tells whether a request would be.

        Raises StoreUnavailable, and ValueError for an empty name.
        """
        name = _checked(name)
        try:
            stats = self._strategy.get_window_stats(_item(limit), name)
        except self._failures as error:
            raise StoreUnavailable("the rate limit storage failed") from error
        return _state(stats.remaining > 0, limit, stats.remaining, stats.reset_time)


def storage_from_uri(uri: str) -> Storage:
    """Build the storage for a ``limits`` address such as ``sqlite:///limits.db`` or ``redis://localhost:6379``.

    A Redis or Valkey that does not answer fails after 2 seconds, unless the address sets ``socket_timeout`` and
    ``socket_connect_timeout`` itself. Raises limits' ConfigurationError, with no part of the address but its scheme.
    """
    if uri.startswith("sqlite:"):
        return SQLiteStorage(uri)
    scheme, separator, rest = uri.partition("://")
    # The redis client speaks to Valkey too, so that no second client is needed: valkeys becomes rediss.
    if scheme.startswith("valkey"):
        scheme = "redis" + scheme.removeprefix("valkey")
    options = {}
    if scheme in _REDIS_SCHEMES:
        options = {"socket_timeout": _REDIS_TIMEOUT_SECONDS, "socket_connect_timeout": _REDIS_TIMEOUT_SECONDS}
    try:
        storage = storage_from_string(scheme + separator + rest, **options)
    except (ConfigurationError, ValueError):
        # The messages of the libraries may hold the whole address, and that may hold a password.
        raise ConfigurationError(f"no rate limit storage can be made from this {scheme}:// address") from None
    if not isinstance(storage, Storage) or not isinstance(storage, MovingWindowSupport):
        raise ConfigurationError(f"a rate limit storage of the kind {scheme} cannot count in a moving window")
    return storage


@lru_cache(maxsize=256)
def _item(limit: int) -> RateLimitItemPerMinute:
    return RateLimitItemPerMinute(limit)


def _checked(name: str) -> str:
    if not name:
        # limits would skip such a limit in silence.
        raise ValueError("a rate limit needs a name")
    # A lone surrogate cannot be stored as UTF-8.
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def _state(allowed: bool, limit: int, remaining: int, reset_at: float) -> RateState:
    return RateState(allowed, limit, max(0, remaining), reset_at)


def _failures_of(storage: Storage) -> tuple[type[Exception], ...]:
    own = storage.base_exceptions
    return (StorageError, *(own if isinstance(own, tuple) else (own,)))
