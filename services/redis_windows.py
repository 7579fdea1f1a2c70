"""Exact moving windows in Redis or Valkey, in one round trip for each hit, in however many windows it counts.

The script of ``limits`` takes two round trips for a hit with what its headers tell, and each reads the whole window:
a limit of thousands a minute would cost as much for each hit. Here a window is a sorted set of the times of its hits.
"""

from __future__ import annotations

import time

from limits.storage import RedisStorage
from redis.commands.core import Script

from services.rate_limit_storage import Asked, Window

_MICROSECONDS = 1_000_000
# The name of the window that checks are counted in, and more of them than there are.
_CHECK = "check"
_CHECKS_A_SECOND = 100_000

# What both scripts begin with. All times in microseconds. Each window is a key, and its limit stands in `limits`.
_BEGIN = b"""
local now, window, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local first = '(' .. string.format('%.0f', now - window)

local function limit_of(number) return tonumber(ARGV[3 + number]) end

-- The hit that has to leave before there is room for more: the oldest, as long as there is.
local function leaving(number, count, more)
    local place = math.max(0, math.min(count, count + more - limit_of(number)) - 1)
    return redis.call('ZRANGEBYSCORE', KEYS[number], first, '+inf', 'LIMIT', place, 1)[1] or ''
end
"""

# Counts in all windows or in none. Hits of the same moment are told apart by moving the later one.
#
# Hits in the future are left of a clock that was set back, which must lock nobody out: they are moved to now, so that
# counts stay and last at most one window longer. The others stay where they are. To move all by the difference, as in
# SQLite, would move them again for each pair of hits from nodes whose clocks differ. Less than a second is no clock
# set back, but nodes that differ by as much as they may, or a hit that came since we looked at the clock.
_TAKE = (
    _BEGIN
    + b"""
local function text(time) return string.format('%.0f', time) end

local function add(key, count)
    local at = now
    for _ = 1, count do
        while redis.call('ZADD', key, 'NX', text(at), text(at)) == 0 do at = at + 1 end
        at = at + 1
    end
end

local counts, room = {}, true
for number, key in ipairs(KEYS) do
    local latest = redis.call('ZRANGE', key, -1, -1)[1]
    if latest and tonumber(latest) > now + 1000000 then
        add(key, redis.call('ZREMRANGEBYSCORE', key, '(' .. text(now), '+inf'))
    end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now - window))
    counts[number] = redis.call('ZCARD', key)
    room = room and counts[number] + amount <= limit_of(number)
end

local answer = {}
for number, key in ipairs(KEYS) do
    local count, more = counts[number], math.max(1, amount)
    local allowed = count + amount <= limit_of(number)
    if room and amount > 0 then
        add(key, amount)
        redis.call('PEXPIRE', key, math.ceil(window / 1000))
        count, more = count + amount, 1
    end
    answer[number] = {allowed and 1 or 0, count, leaving(number, count, more)}
end
return answer
"""
)

# Writes nothing, so that a look at a window needs no right to write.
_LOOK = (
    _BEGIN
    + b"""
local answer = {}
for number, key in ipairs(KEYS) do
    local count = redis.call('ZCOUNT', key, first, '+inf')
    answer[number] = {count < limit_of(number) and 1 or 0, count, leaving(number, count, 1)}
end
return answer
"""
)


class RedisWindows:
    """The moving windows of one storage. It raises what the storage raises."""

    def __init__(self, storage: RedisStorage) -> None:
        self._name = storage.prefixed_key
        client = storage.get_connection()
        self._take = client.register_script(_TAKE)
        self._look = client.register_script(_LOOK)

    def take(self, asked: Asked, seconds: int, amount: int = 1) -> list[Window]:
        """Count ``amount`` hits in each of the windows of ``seconds`` that end now, if none then holds more than its
        limit; else in none of them."""
        return self._run(self._take, asked, seconds, amount)

    def look(self, asked: Asked, seconds: int) -> list[Window]:
        """Tell what ``take`` would find for one hit, without counting."""
        return self._run(self._look, asked, seconds, 1)

    def check(self) -> bool:
        """Tell that hits are counted now, by one. A server that answers and takes no writing, as a replica, raises."""
        return self.take([(_CHECK, _CHECKS_A_SECOND)], 1)[0].allowed

    def _run(self, script: Script, asked: Asked, seconds: int, amount: int) -> list[Window]:
        now = time.time()
        # The library's own windows are of another type, and have the name without this.
        keys = [f"{self._name(key)}/times" for key, _ in asked]
        arguments = [int(now * _MICROSECONDS), seconds * _MICROSECONDS, amount, *(limit for _, limit in asked)]
        return [_window(now, found) for found in script(keys, arguments)]


def _window(now: float, found: tuple[int, int, bytes]) -> Window:
    allowed, hits, leaving = found
    # What a look finds in the future is moved to now by the next hit.
    return Window(bool(allowed), hits, min(int(leaving) / _MICROSECONDS, now) if leaving else now)
