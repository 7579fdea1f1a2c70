"""Rate limits: how many requests a name may make in any 60 seconds.

The count is exact: a moving window over the last 60 seconds, one for all processes that share the storage. A refused
request is not counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from math import ceil
from typing import NamedTuple, TypeVar, cast

import structlog
from limits import RateLimitItemPerMinute
from limits.errors import ConfigurationError, StorageError
from limits.storage import MovingWindowSupport, RedisStorage, Storage, storage_from_string

from services import metrics

# Importing the class registers the scheme "sqlite" with limits.
from services.rate_limit_storage import SQLiteStorage, Window
from services.redis_windows import RedisWindows

WINDOW_SECONDS = 60

_REDIS_SCHEMES = ("redis", "rediss", "redis+unix")
_REDIS_TIMEOUT_SECONDS = 2.0
# How long a storage that failed is left alone.
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 15.0
# A try that takes as long as this before it fails is one that others wait behind.
_LONG_SECONDS = 0.1

_AWAY = "requests are refused that cannot be counted: the storage of rate limits failed"
_AWAY_IN_MEMORY = "rate limits are counted in the memory of this process: their storage failed"

_Answer = TypeVar("_Answer")

_log = structlog.get_logger("rate_limits")


class StoreUnavailable(Exception):
    """The storage cannot count at the moment: locked, read-only, damaged, full or out of reach."""


class RateState(NamedTuple):
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
    """Counts requests by name. A name may be any text but the empty one; each limit of a name has its own count.

    While the storage fails, every question raises StoreUnavailable; or, with ``fallback``, each process counts in its
    own memory, and asks the storage now and then whether it is back.
    """

    def __init__(self, storage: Storage, *, fallback: bool = False) -> None:
        self._storage = storage
        self._store = _Counts(storage)
        self._memory = _Counts(SQLiteStorage.in_memory()) if fallback else None
        self._outage = Outage(in_memory=fallback)

    @property
    def storage_title(self) -> str:
        """What the counts are kept in, as people call it. No address."""
        if isinstance(self._storage, SQLiteStorage):
            return "SQLite"
        return type(self._storage).__name__.removesuffix("Storage")

    @property
    def falls_back(self) -> bool:
        """Whether requests are counted in memory while the storage fails."""
        return self._memory is not None

    @property
    def in_memory(self) -> bool:
        """Whether this process counts in its own memory now."""
        return self._memory is not None and self._outage.lasts

    def hit(self, name: str, limit: int, cost: int = 1) -> RateState:
        """Count a request under ``name`` if the last 60 seconds have room for it; ``cost`` is how many it counts as.

        Raises StoreUnavailable, and ValueError for an empty name.
        """
        return self._ask(_Counts.hit, _checked(name), limit, cost)

    def peek(self, name: str, limit: int) -> RateState:
        """Tell what ``hit`` would find, without counting. ``allowed`` tells whether a request would be.

        Raises StoreUnavailable, and ValueError for an empty name.
        """
        return self._ask(_Counts.peek, _checked(name), limit)

    def acquire(self, key: str, limit: int, seconds: int, amount: int) -> bool:
        """Count in any moving window, as the storages of ``limits`` do. Raises StoreUnavailable."""
        return self._ask(_Counts.acquire, key, limit, seconds, amount)

    def window(self, key: str, limit: int, seconds: int) -> tuple[float, int]:
        """Return the start of a moving window and the hits in it. Raises StoreUnavailable."""
        return self._ask(_Counts.window, key, limit, seconds)

    def is_up(self) -> bool:
        """Tell whether the storage counts now, whatever is done while it does not."""
        try:
            return self._store.check()
        except self._store.failures:
            return False

    def _ask(self, question: Callable[..., _Answer], *arguments: object) -> _Answer:
        outage = self._outage
        if not outage.may_try():
            if self._memory is None:
                raise StoreUnavailable("the rate limit storage failed a moment ago")
            return question(self._memory, *arguments)
        began = outage.clock()
        try:
            answer = question(self._store, *arguments)
        except StoreUnavailable as error:
            metrics.LIMITER_STORE_FAILURES.add()
            outage.note_failure(error, began)
            if self._memory is None:
                raise
            return question(self._memory, *arguments)
        if outage.lasts:
            outage.note_success()
        return answer


class _Counts:
    """The counts in one storage. Whatever fails there is a StoreUnavailable."""

    def __init__(self, storage: Storage) -> None:
        self._windows = _windows_of(storage)
        self.failures = _failures_of(storage)

    def hit(self, name: str, limit: int, cost: int) -> RateState:
        return _seen(limit, *self._take(_key(limit, name), limit, WINDOW_SECONDS, cost))

    def peek(self, name: str, limit: int) -> RateState:
        return _seen(limit, *self._look(_key(limit, name), limit, WINDOW_SECONDS))

    def acquire(self, key: str, limit: int, seconds: int, amount: int) -> bool:
        return self._take(key, limit, seconds, amount).allowed

    def window(self, key: str, limit: int, seconds: int) -> tuple[float, int]:
        found = self._look(key, limit, seconds)
        return found.oldest_at, found.hits

    def check(self) -> bool:
        """Tell whether the storage counts now. Raises one of ``failures`` at times."""
        return self._windows.check()

    def _take(self, key: str, limit: int, seconds: int, amount: int) -> Window:
        try:
            return self._windows.take(key, limit, seconds, amount)
        except self.failures as error:
            raise StoreUnavailable("the rate limit storage failed") from error

    def _look(self, key: str, limit: int, seconds: int) -> Window:
        try:
            return self._windows.look(key, limit, seconds)
        except self.failures as error:
            raise StoreUnavailable("the rate limit storage failed") from error


class _LibraryWindows:
    """The moving windows of any other storage: two steps for a hit and what is told of it."""

    def __init__(self, storage: Storage) -> None:
        self._moving = cast(MovingWindowSupport, storage)
        self.check = storage.check

    def take(self, key: str, limit: int, seconds: int, amount: int = 1) -> Window:
        allowed = self._moving.acquire_entry(key, limit, seconds, amount)
        return self.look(key, limit, seconds)._replace(allowed=allowed)

    def look(self, key: str, limit: int, seconds: int) -> Window:
        oldest_at, hits = self._moving.get_moving_window(key, limit, seconds)
        return Window(hits < limit, hits, oldest_at)


def _windows_of(storage: Storage) -> SQLiteStorage | RedisWindows | _LibraryWindows:
    if isinstance(storage, SQLiteStorage):
        return storage
    return RedisWindows(storage) if isinstance(storage, RedisStorage) else _LibraryWindows(storage)


class Outage:
    """Whether the storage has failed and is not back yet, told once in the log at either end.

    ``in_memory``: requests are counted in memory meanwhile, and now and then one of them tries the storage again.
    Otherwise they are refused. All of them try it, so that the first after its return is served, unless it hangs: then
    they would wait one behind the other.
    """

    def __init__(self, *, in_memory: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._in_memory = in_memory
        self._lock = threading.Lock()
        self._pause = _FIRST_PAUSE_SECONDS
        self._next_try = 0.0
        self._hangs = False
        self._ended_at = float("-inf")
        self.lasts = False

    def may_try(self) -> bool:
        """Tell whether to ask the storage; during an outage only one request at a time is told yes."""
        if not self.lasts:
            return True
        with self._lock:
            if self.clock() < self._next_try:
                return False
            if self._in_memory or self._hangs:
                # It must hold up nobody else meanwhile.
                self._next_try = self.clock() + self._pause
            return True

    def note_failure(self, error: Exception, began: float) -> None:
        """Note that a try which began then has failed."""
        with self._lock:
            if began < self._ended_at:
                # The storage has answered others since.
                return
            ended = self.clock()
            self._hangs = ended - began >= _LONG_SECONDS
            if self._in_memory:
                self._next_try = ended + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            elif self._hangs:
                self._pause = min(ended - began, _FIRST_PAUSE_SECONDS)
                self._next_try = ended + self._pause
            if self.lasts:
                return
            self.lasts = True
            metrics.LIMITER_IN_MEMORY.set(int(self._in_memory))
        _log.error(_AWAY_IN_MEMORY if self._in_memory else _AWAY, cause=type(error.__cause__).__name__)

    def note_success(self) -> None:
        """Note that the storage has answered."""
        with self._lock:
            if not self.lasts:
                return
            self.lasts = False
            self._ended_at = self.clock()
            self._pause = _FIRST_PAUSE_SECONDS
            metrics.LIMITER_IN_MEMORY.set(0)
        _log.warning("rate limits are counted in their storage again")


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


@lru_cache(maxsize=4096)
def _key(limit: int, name: str) -> str:
    """Return the name of a window as the library makes it."""
    return _item(limit).key_for(name)


def _checked(name: str) -> str:
    if not name:
        # limits would skip such a limit in silence.
        raise ValueError("a rate limit needs a name")
    # A lone surrogate cannot be stored as UTF-8.
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def _seen(limit: int, allowed: bool, hits: int, oldest_at: float) -> RateState:
    return RateState(allowed, limit, limit - hits if hits < limit else 0, oldest_at + WINDOW_SECONDS)


def _failures_of(storage: Storage) -> tuple[type[Exception], ...]:
    own = storage.base_exceptions
    return (StorageError, *(own if isinstance(own, tuple) else (own,)))
