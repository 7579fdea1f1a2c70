"""Rate limits: how many requests a name may make in any 60 seconds.

The count is exact: a moving window over the last 60 seconds, one for all processes that share the storage. A refused
request is not counted. A limit that is changed finds what was counted before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple, TypeVar, cast

import structlog
from limits.errors import ConfigurationError
from limits.storage import RedisStorage, storage_from_string
from redis import Redis
from redis.exceptions import RedisError

from services import metrics

# Importing the class registers the scheme "sqlite" with limits.
from services.rate_limit_storage import Asked, SQLiteStorage, Window
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
    """What one limit answers to a request, and what the rate limit headers tell.

    ``allowed`` tells that this limit has room. ``reset_at`` is the time, in Unix seconds, at which one more request
    becomes possible than is now: the oldest counted one leaves the window then, or, if that makes no room yet for the
    request, the one that does. If none is counted, it is 60 seconds from now.
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
    """Counts requests by name. A name may be any text but the empty one.

    While the storage fails, every question raises StoreUnavailable; or, with ``fallback``, each process counts in its
    own memory, and asks the storage now and then whether it is back.
    """

    def __init__(self, storage: SQLiteStorage | RedisStorage, *, fallback: bool = False) -> None:
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
        return self.hit_all([(name, limit)], cost)[0]

    def hit_all(self, limits: Sequence[tuple[str, int]], cost: int = 1) -> list[RateState]:
        """Count a request under several names, each with its limit, if all of them have room for it; else under none.

        Raises StoreUnavailable, and ValueError for an empty name.
        """
        return self._ask(_Counts.hit, [(_key(name), limit) for name, limit in limits], cost)

    def peek(self, name: str, limit: int) -> RateState:
        """Tell what ``hit`` would find, without counting. Raises StoreUnavailable, and ValueError for an empty name."""
        return self.peek_all([(name, limit)])[0]

    def peek_all(self, limits: Sequence[tuple[str, int]]) -> list[RateState]:
        """Tell what ``hit_all`` would find, without counting.

        Raises StoreUnavailable, and ValueError for an empty name.
        """
        return self._ask(_Counts.peek, [(_key(name), limit) for name, limit in limits])

    def acquire(self, key: str, limit: int, seconds: int, amount: int) -> bool:
        """Count in any moving window, as the storages of ``limits`` do. Raises StoreUnavailable."""
        return self._ask(_Counts.acquire, key, limit, seconds, amount)

    def window(self, key: str, limit: int, seconds: int) -> tuple[float, int]:
        """Return the start of a moving window and the hits in it. Raises StoreUnavailable."""
        return self._ask(_Counts.window, key, limit, seconds)

    def look(self) -> None:
        """Ask the storage something, so that its failing and its return are noticed while nobody calls as well."""
        with contextlib.suppress(StoreUnavailable):
            self.peek("nobody", 1)

    def is_up(self) -> bool:
        """Tell whether the storage counts now, whatever is done while it does not."""
        try:
            return self._store.check()
        except Exception:
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

    def __init__(self, storage: SQLiteStorage | RedisStorage) -> None:
        self._windows = RedisWindows(storage) if isinstance(storage, RedisStorage) else storage

    def hit(self, asked: Asked, cost: int) -> list[RateState]:
        return _seen(asked, self._take(asked, WINDOW_SECONDS, cost))

    def peek(self, asked: Asked) -> list[RateState]:
        return _seen(asked, self._look(asked, WINDOW_SECONDS))

    def acquire(self, key: str, limit: int, seconds: int, amount: int) -> bool:
        return self._take([(key, limit)], seconds, amount)[0].allowed

    def window(self, key: str, limit: int, seconds: int) -> tuple[float, int]:
        (found,) = self._look([(key, limit)], seconds)
        return found.leaving_at, found.hits

    def check(self) -> bool:
        """Tell whether the storage counts now. Raises whatever the storage does."""
        return self._windows.check()

    def _take(self, asked: Asked, seconds: int, amount: int) -> list[Window]:
        try:
            return self._windows.take(asked, seconds, amount)
        except Exception as error:
            raise StoreUnavailable("the rate limit storage failed") from error

    def _look(self, asked: Asked, seconds: int) -> list[Window]:
        try:
            return self._windows.look(asked, seconds)
        except Exception as error:
            raise StoreUnavailable("the rate limit storage failed") from error


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
            metrics.LIMITER_AWAY.set(1)
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
            metrics.LIMITER_AWAY.set(0)
            metrics.LIMITER_IN_MEMORY.set(0)
        _log.warning("rate limits are counted in their storage again")


def storage_from_uri(uri: str) -> SQLiteStorage | RedisStorage:
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
    if scheme not in _REDIS_SCHEMES:
        raise ConfigurationError("rate limits are counted in SQLite or in Redis only")
    timeouts = {"socket_timeout": _REDIS_TIMEOUT_SECONDS, "socket_connect_timeout": _REDIS_TIMEOUT_SECONDS}
    try:
        storage = storage_from_string(scheme + separator + rest, **timeouts)
        assert isinstance(storage, RedisStorage)
        # Connects nowhere yet, but finds what no connection can be made with.
        cast(Redis, storage.get_connection()).connection_pool.make_connection()
    except (ConfigurationError, RedisError, TypeError, ValueError):
        # The messages of the libraries may hold the whole address, and that may hold a password.
        raise ConfigurationError(f"no rate limit storage can be made from this {scheme}:// address") from None
    return storage


def _key(name: str) -> str:
    """Return the name of a window, which is none of those that the library gives to the limits of pages."""
    if not name:
        # limits would skip such a limit in silence.
        raise ValueError("a rate limit needs a name")
    # A lone surrogate cannot be stored as UTF-8.
    return f"name/{name if name.isascii() else name.encode('utf-8', 'backslashreplace').decode()}"


def _seen(asked: Asked, windows: list[Window]) -> list[RateState]:
    return [
        RateState(allowed, limit, max(0, limit - hits), leaving_at + WINDOW_SECONDS)
        for (_, limit), (allowed, hits, leaving_at) in zip(asked, windows, strict=True)
    ]
