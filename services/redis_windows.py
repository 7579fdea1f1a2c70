"""Exact moving windows in Redis or Valkey, in one round trip for each hit.

The script of ``limits`` takes two round trips for a hit with what its headers tell, and each reads the whole window:
a limit of thousands a minute would cost as much for each hit. Here a window is a sorted set of the times of its hits.
"""

from __future__ import annotations

import time

from limits.storage import RedisStorage

from services.rate_limit_storage import Window

_MICROSECONDS = 1_000_000
# The name of the window that checks are counted in, and more of them than there are.
_CHECK = "check"
_CHECKS_A_SECOND = 100_000

# All times in microseconds. Hits of the same moment are told apart by moving the later one.
#
# Hits in the future are left of a clock that was set back, which must lock nobody out: they are moved to now, so that
# counts stay and last at most one window longer. The others stay where they are. To move all by the difference, as in
# SQLite, would move them again for each pair of hits from nodes whose clocks differ. Less than a second is no clock
# set back, but nodes that differ by as much as they may, or a hit that came since we looked at the clock.
_TAKE = b"""
local key, now, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local limit, amount = tonumber(ARGV[3]), tonumber(ARGV[4])

local function text(time) return string.format('%.0f', time) end

local function add(count)
    local at = now
    for _ = 1, count do
        while redis.call('ZADD', key, 'NX', text(at), text(at)) == 0 do at = at + 1 end
        at = at + 1
    end
end

local latest = redis.call('ZRANGE', key, -1, -1)[1]
if latest and tonumber(latest) > now + 1000000 then
    add(redis.call('ZREMRANGEBYSCORE', key, '(' .. text(now), '+inf'))
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now - window))
local count = redis.call('ZCARD', key)
local allowed = count + amount <= limit
if allowed and amount > 0 then
    add(amount)
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
    count = count + amount
end
return {allowed and 1 or 0, count, redis.call('ZRANGE', key, 0, 0)[1] or ''}
"""

# As above, with nothing written, so that a look at a window needs no right to write.
_LOOK = b"""
local key, now, window, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local first = '(' .. string.format('%.0f', now - window)
local count = redis.call('ZCOUNT', key, first, '+inf')
return {count < limit and 1 or 0, count, redis.call('ZRANGEBYSCORE', key, first, '+inf', 'LIMIT', 0, 1)[1] or ''}
"""


class RedisWindows:
    """The moving windows of one storage. It raises what the storage raises."""

    def __init__(self, storage: RedisStorage) -> None:
        self._name = storage.prefixed_key
        client = storage.get_connection()
        self._take = client.register_script(_TAKE)
        self._look = client.register_script(_LOOK)

    def take(self, key: str, limit: int, seconds: int, amount: int = 1) -> Window:
        """Count ``amount`` hits in the window of ``seconds`` that ends now, if it then holds no more than ``limit``."""
        now = time.time()
        return _window(now, self._take([self._key(key)], [*_times(now, seconds), limit, amount]))

    def look(self, key: str, limit: int, seconds: int) -> Window:
        """Tell what ``take`` would find, without counting."""
        now = time.time()
        return _window(now, self._look([self._key(key)], [*_times(now, seconds), limit]))

    def check(self) -> bool:
        """Tell that hits are counted now, by one. A server that answers and takes no writing, as a replica, raises."""
        return self.take(_CHECK, _CHECKS_A_SECOND, 1).allowed

    def _key(self, key: str) -> str:
        # The library's own windows are of another type, and have the name without this.
        return f"{self._name(key)}/times"


def _times(now: float, seconds: int) -> tuple[int, int]:
    return int(now * _MICROSECONDS), seconds * _MICROSECONDS


def _window(now: float, answer: tuple[int, int, bytes]) -> Window:
    allowed, hits, oldest = answer
    # What a look finds in the future is moved to now by the next hit.
    return Window(bool(allowed), hits, min(int(oldest) / _MICROSECONDS, now) if oldest else now)
