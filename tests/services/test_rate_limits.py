"""Rate limits: exact over threads and processes, on every storage, whatever the clock and the file do."""

import contextlib
import itertools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.errors import ConfigurationError
from limits.storage import RedisStorage, storage_from_string
from limits.storage.base import TimestampedSlidingWindow
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from services import logs
from services.guarded_storage import GuardedStorage
from services.rate_limit_storage import SQLiteStorage
from services.rate_limits import Outage, RateLimits, StoreUnavailable, storage_from_uri
from tests.neighbours.processes import wait_until

STRATEGIES = [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]
NOON = 1_800_000_000.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "memory", "redis"])
def storage(request, tmp_path):
    if request.param == "memory":
        return SQLiteStorage.in_memory()
    is_file = request.param == "sqlite"
    return storage_from_uri(f"sqlite:///{tmp_path}/limits.db" if is_file else request.getfixturevalue("redis_url"))


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/limits.db"


@pytest.fixture
def sqlite(uri):
    storage = storage_from_uri(uri)
    yield storage
    storage.close()


@pytest.fixture
def limits(sqlite):
    return RateLimits(sqlite)


@pytest.fixture(params=["sqlite", "redis"])
def counting(request):
    """The limits as calls are counted, in both storages that are shared."""
    if request.param == "sqlite":
        return request.getfixturevalue("limits")
    return RateLimits(storage_from_uri(request.getfixturevalue("redis_url")))


@pytest.fixture
def name():
    # Redis is shared by the tests.
    return f"ws_{uuid.uuid4().hex}"


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def rows_in(tmp_path):
    connection = sqlite3.connect(tmp_path / "limits.db")
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    count = sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for (table,) in tables)
    connection.close()
    return count


def start_worker(function, *arguments):
    command = [sys.executable, "-m", "tests.services.limit_worker", function, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def answer_of(worker):
    try:
        answer, _ = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert worker.returncode == 0
    # Before it may come what was logged.
    return json.loads(answer.splitlines()[-1])


# The same promises on every storage


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_as_many_hits_as_the_limit_says_are_allowed_and_then_none(storage, name, strategy):
    limiter, limit = strategy(storage), RateLimitItemPerMinute(5)
    assert [limiter.hit(limit, name) for _ in range(8)] == [True] * 5 + [False] * 3
    assert not limiter.test(limit, name)
    assert limiter.get_window_stats(limit, name).remaining == 0


@pytest.mark.parametrize("strategy", [FixedWindowRateLimiter, MovingWindowRateLimiter])
def test_a_limit_opens_again_at_the_time_it_told(storage, name, strategy):
    limiter, limit = strategy(storage), RateLimitItemPerSecond(2)
    while limiter.hit(limit, name):
        pass
    reset_time = limiter.get_window_stats(limit, name).reset_time
    assert reset_time - time.time() <= 1.1
    time.sleep(max(0.0, reset_time - time.time()) + 0.05)
    assert limiter.hit(limit, name)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_testing_a_limit_does_not_use_it_up(storage, name, strategy):
    limiter, limit = strategy(storage), RateLimitItemPerMinute(3)
    assert all(limiter.test(limit, name) for _ in range(9))
    assert limiter.hit(limit, name)
    assert limiter.test(limit, name, cost=2)
    assert not limiter.test(limit, name, cost=3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cleared_limit_starts_again_and_others_do_not(storage, name, strategy):
    limiter, limit = strategy(storage), RateLimitItemPerMinute(1)
    assert limiter.hit(limit, name)
    assert limiter.hit(limit, f"other {name}")
    limiter.clear(limit, name)
    assert limiter.hit(limit, name)
    assert not limiter.hit(limit, f"other {name}")


@pytest.mark.parametrize("strategy", [MovingWindowRateLimiter, SlidingWindowCounterRateLimiter])
def test_a_refused_hit_costs_nothing(storage, name, strategy):
    limiter, limit = strategy(storage), RateLimitItemPerMinute(10)
    assert not limiter.hit(limit, name, cost=11)
    assert limiter.hit(limit, name, cost=7)
    assert not limiter.hit(limit, name, cost=4)
    assert limiter.get_window_stats(limit, name).remaining == 3
    assert limiter.hit(limit, name, cost=3)
    assert not limiter.hit(limit, name)


def test_a_fixed_window_adds_up_costs(storage, name):
    limiter, limit = FixedWindowRateLimiter(storage), RateLimitItemPerMinute(10)
    assert limiter.hit(limit, name, cost=4)
    assert limiter.get_window_stats(limit, name).remaining == 6
    assert limiter.hit(limit, name, cost=6)
    assert not limiter.hit(limit, name)


def test_a_moving_window_frees_each_hit_by_itself(storage, name, clock):
    limiter, limit = MovingWindowRateLimiter(storage), RateLimitItemPerMinute(2)
    assert limiter.hit(limit, name)
    clock.shift(30)
    assert limiter.hit(limit, name)
    clock.shift(31)
    assert limiter.get_window_stats(limit, name).remaining == 1
    assert limiter.hit(limit, name)
    assert not limiter.hit(limit, name)


# Redis counts sliding windows by its own clock.
@pytest.mark.parametrize("storage", ["sqlite", "memory"], indirect=True)
def test_a_sliding_counter_lets_the_previous_window_fade(storage, clock):
    limiter, limit = SlidingWindowCounterRateLimiter(storage), RateLimitItemPerMinute(100)
    assert limiter.hit(limit, "name", cost=100)
    clock.shift(61)
    assert limiter.get_window_stats(limit, "name").remaining == 2
    clock.shift(29)
    assert limiter.get_window_stats(limit, "name").remaining == 50
    assert limiter.hit(limit, "name", cost=50)
    assert not limiter.hit(limit, "name")
    clock.shift(31)
    assert limiter.get_window_stats(limit, "name").remaining == 51
    clock.shift(60)
    assert limiter.hit(limit, "name", cost=100)


def test_windows_of_a_sliding_counter_are_cut_by_the_clock_as_limits_expects_of_timestamped_ones(sqlite, clock):
    assert isinstance(sqlite, TimestampedSlidingWindow)
    assert NOON % 60 == 0
    limiter, limit = SlidingWindowCounterRateLimiter(sqlite), RateLimitItemPerMinute(10)
    clock.move_to(NOON + 47)
    for name in ("one", "two"):
        assert limiter.hit(limit, name, cost=6)
        assert limiter.get_window_stats(limit, name).reset_time == NOON + 60
        clock.shift(5)
    assert sqlite.get_sliding_window(limit.key_for("one"), 60) == (0, 0.0, 6, pytest.approx(NOON + 120 - time.time()))
    clock.move_to(NOON + 75)
    for name in ("one", "two"):
        previous, left, current, _ = sqlite.get_sliding_window(limit.key_for(name), 60)
        assert (previous, left, current) == (6, 45.0, 0)


def test_a_sliding_counter_written_before_windows_were_aligned_still_counts(sqlite, clock, tmp_path):
    limiter, limit = SlidingWindowCounterRateLimiter(sqlite), RateLimitItemPerMinute(10)
    assert limiter.hit(limit, "name", cost=10)
    connection = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
    connection.execute("UPDATE sliding_counters SET start = start - 17.25")
    connection.close()
    assert not limiter.hit(limit, "name")
    clock.shift(60)
    assert limiter.hit(limit, "name")


def test_a_healthy_storage_says_so(storage):
    assert storage.check()


def test_a_reset_forgets_all_and_tells_how_much(sqlite):
    limit = RateLimitItemPerMinute(1)
    for strategy in STRATEGIES:
        assert strategy(sqlite).hit(limit, "name")
    assert sqlite.reset() == 3
    assert sqlite.reset() == 0
    for strategy in STRATEGIES:
        assert strategy(sqlite).hit(limit, "name")


# What a hit tells


def test_a_hit_tells_what_the_headers_need(storage, name):
    limits, start = RateLimits(storage), time.time()
    states = [limits.hit(name, 3) for _ in range(5)]
    assert [state.allowed for state in states] == [True, True, True, False, False]
    assert [state.remaining for state in states] == [2, 1, 0, 0, 0]
    assert {state.limit for state in states} == {3}
    for state in states:
        # Redis answers in milliseconds.
        assert start + 60 <= state.reset_at + 0.001 <= time.time() + 60.001
        assert 50 < state.retry_after <= 60


def test_a_peek_tells_the_same_and_counts_nothing(storage, name):
    limits = RateLimits(storage)
    unused = limits.peek(name, 2)
    assert (unused.allowed, unused.limit, unused.remaining) == (True, 2, 2)
    assert abs(unused.reset_at - time.time() - 60) < 5
    for _ in range(2):
        state = limits.hit(name, 2)
        peeked = [limits.peek(name, 2) for _ in range(3)]
        assert {peek.remaining for peek in peeked} == {state.remaining}
        assert all(abs(peek.reset_at - state.reset_at) < 0.001 for peek in peeked)
    assert not limits.peek(name, 2).allowed
    assert not limits.hit(name, 2).allowed


def test_reset_is_when_the_oldest_hit_leaves(limits, clock):
    limits.hit("name", 2)
    clock.shift(10)
    assert limits.hit("name", 2).reset_at == NOON + 60
    clock.shift(25.5)
    refused = limits.hit("name", 2)
    assert (refused.allowed, refused.reset_at, refused.retry_after) == (False, NOON + 60, 25)
    clock.shift(refused.retry_after)
    again = limits.hit("name", 2)
    assert (again.allowed, again.remaining, again.reset_at) == (True, 0, NOON + 70)


def test_retry_after_is_never_less_than_a_second(limits, clock):
    state = limits.hit("name", 1)
    clock.shift(59.99)
    assert state.retry_after == 1
    clock.shift(100)
    assert state.retry_after == 1


@pytest.mark.parametrize(
    "unusual",
    ["2001:db8::1", "fe80::1%eth0", "a/b/1/minute", "%_*?", "' OR 1=1 --", "a\0b", "ключ 🔑", "\udc80", "x" * 9999],
)
def test_a_name_may_hold_anything(storage, name, unusual):
    limits = RateLimits(storage)
    assert limits.hit(name + unusual, 1).allowed
    assert not limits.hit(name + unusual, 1).allowed
    assert limits.peek(name + unusual + "/1", 1).allowed
    assert limits.peek(name, 1).allowed


def test_an_empty_name_is_refused_and_not_skipped(storage):
    limits = RateLimits(storage)
    with pytest.raises(ValueError, match="name"):
        limits.hit("", 1)
    with pytest.raises(ValueError, match="name"):
        limits.peek("", 1)


@pytest.mark.parametrize("changed_to", [4, 9, 10, 11, 30])
def test_a_changed_limit_finds_what_was_counted_before(counting, name, clock, changed_to):
    for _ in range(10):
        assert counting.hit(name, 10).allowed
        clock.shift(1)
    assert [counting.hit(name, changed_to).allowed for _ in range(30)].count(True) == max(0, changed_to - 10)
    clock.shift(10)
    assert counting.peek(name, changed_to).remaining == 0


@pytest.mark.parametrize(("cost", "must_leave"), [(1, 7), (3, 9), (4, 10), (9, 10)])
def test_a_limit_that_was_lowered_tells_when_there_is_room_again(counting, name, clock, cost, must_leave):
    for _ in range(10):
        assert counting.hit(name, 10).allowed
        clock.shift(1)
    refused = counting.hit(name, 4, cost)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.reset_at == pytest.approx(NOON + 60 + must_leave - 1, abs=0.001)
    assert counting.peek(name, 4).reset_at == pytest.approx(NOON + 60 + 6, abs=0.001)
    if cost <= 4:
        clock.move_to(refused.reset_at - 0.01)
        assert not counting.hit(name, 4, cost).allowed
        clock.move_to(refused.reset_at + 0.001)
        assert counting.hit(name, 4, cost).allowed


# Several limits for one request


def test_a_request_counts_in_all_its_limits_or_in_none(counting, name):
    tight, wide = (f"{name} tight", 3), (f"{name} wide", 5)
    for left in (2, 1, 0):
        states = counting.hit_all([tight, wide])
        assert [(state.allowed, state.remaining) for state in states] == [(True, left), (True, left + 2)]
    for asked in ([tight, wide], [wide, tight]):
        states = dict(zip(asked, counting.hit_all(asked), strict=True))
        assert [(states[one].allowed, states[one].remaining) for one in (tight, wide)] == [(False, 0), (True, 2)]
    assert [state.allowed for state in counting.hit_all([tight, wide], 3)] == [False, False]
    assert [state.remaining for state in counting.peek_all([wide, tight])] == [2, 0]
    assert counting.hit(*wide, cost=2).allowed


def test_of_several_limits_a_new_one_counts_beside_an_old_one(counting, name):
    assert counting.hit(f"{name} old", 2).allowed
    assert [state.remaining for state in counting.hit_all([(f"{name} new", 1), (f"{name} old", 2)])] == [0, 0]
    refused = counting.hit_all([(f"{name} newer", 1), (f"{name} old", 2)])
    assert [(state.allowed, state.remaining) for state in refused] == [(True, 1), (False, 0)]


@pytest.mark.parametrize("step", [1, 3_600])
def test_several_limits_keep_together_when_the_clock_is_set_back(counting, name, clock, step):
    limits = [(f"{name} one", 5), (f"{name} other", 9)]
    for _ in range(3):
        counting.hit_all(limits)
    clock.shift(-step)
    assert [state.remaining for state in counting.peek_all(limits)] == [2, 6]
    assert [state.remaining for state in counting.hit_all(limits)] == [1, 5]
    clock.shift(61.001)
    assert [state.remaining for state in counting.hit_all(limits)] == [4, 8]


@pytest.mark.parametrize("several", [1, 2])
def test_a_hit_is_one_script_in_redis_in_however_many_windows(redis_url, name, several):
    storage = storage_from_uri(redis_url)
    limits, server = RateLimits(storage), storage.get_connection()
    asked = [(f"{name} {number}", 3) for number in range(several)]
    limits.hit_all(asked)
    server.config_resetstat()
    for _ in range(4):
        limits.hit_all(asked)
    # What the script itself calls is counted as well.
    counted = {command: found["calls"] for command, found in server.info("commandstats").items()}
    assert counted["cmdstat_evalsha"] == 4
    assert not {"cmdstat_eval", "cmdstat_get", "cmdstat_multi"} & set(counted)


def test_what_one_limit_refuses_costs_another_nothing_however_many_ask_at_once(shared_uri, name):
    start_at = time.time() + 1
    workers = [start_worker("hit_two", shared_uri, name, 60, 30, 4, 40, start_at) for _ in range(2)]
    assert sum(answer_of(worker) for worker in workers) == 30
    limits = RateLimits(storage_from_uri(shared_uri))
    assert limits.peek(f"{name} own", 60).remaining == 30
    assert limits.peek(name, 30).remaining == 0


# Exactness


def test_a_burst_over_the_edge_of_a_minute_is_not_let_through_twice(limits, clock):
    clock.move_to(NOON + 59)
    assert [limits.hit("name", 10).allowed for _ in range(12)].count(True) == 10
    clock.move_to(NOON + 61)
    assert not any(limits.hit("name", 10).allowed for _ in range(12))
    clock.move_to(NOON + 118.5)
    assert not limits.hit("name", 10).allowed
    clock.move_to(NOON + 119)
    assert [limits.hit("name", 10).allowed for _ in range(12)].count(True) == 10


quarter_seconds = st.integers(0, 300).map(lambda quarters: quarters / 4)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def lasting(request, tmp_path_factory):
    if request.param == "redis":
        yield RateLimits(storage_from_uri(request.getfixturevalue("redis_url")))
        return
    storage = storage_from_uri(f"sqlite:///{tmp_path_factory.mktemp('limits')}/limits.db")
    yield RateLimits(storage)
    storage.close()


@settings(deadline=None, max_examples=60)
@given(limit=st.integers(1, 150), steps=st.lists(st.tuples(quarter_seconds, st.integers(1, 160)), max_size=60))
def test_a_moving_window_agrees_with_a_plain_list_of_hits(lasting, limit, steps):
    key = f"list {uuid.uuid4().hex}"
    model: list[float] = []
    with time_machine.travel(NOON, tick=False) as clock:
        for gap, amount in steps:
            # Never a minute to the microsecond: in Redis, hits of the same moment lie a microsecond apart.
            clock.shift(gap / 4 + 0.001)
            now = time.time()
            model = [hit for hit in model if hit > now - 60]
            allowed = len(model) + amount <= limit
            model += [now] * amount if allowed else []
            assert lasting.hit(key, limit, amount).allowed == allowed
            state = lasting.peek(key, limit)
            assert (state.allowed, state.remaining) == (len(model) < limit, limit - len(model))
            assert abs(state.reset_at - (model[0] if model else now) - 60) < 0.0005


@settings(deadline=None, max_examples=60)
@given(limit=st.integers(1, 5), steps=st.lists(st.tuples(quarter_seconds, st.integers(0, 90_000)), max_size=60))
def test_no_60_seconds_hold_more_than_the_limit_even_while_the_clock_is_set_back(lasting, limit, steps):
    limits, key = lasting, f"back {uuid.uuid4().hex}"
    elapsed = set_back = 0.0
    allowed_at: list[float] = []
    with time_machine.travel(NOON, tick=False) as clock:
        for gap, step in steps:
            elapsed += gap / 4
            set_back += step
            clock.move_to(NOON + elapsed - set_back)
            last_minute = [at for at in allowed_at if at > elapsed - 60]
            assert limits.peek(key, limit).remaining <= limit - len(last_minute)
            if limits.hit(key, limit).allowed:
                assert len(last_minute) < limit
                allowed_at.append(elapsed)


@pytest.fixture(params=["sqlite", "redis"])
def shared_uri(request, uri):
    """What several processes count in."""
    return uri if request.param == "sqlite" else request.getfixturevalue("redis_url")


def test_eight_threads_in_each_of_two_processes_share_one_exact_count(shared_uri, name):
    start_at = time.time() + 1
    workers = [start_worker("hit", shared_uri, name, 1000, 8, 100, start_at) for _ in range(2)]
    assert sum(answer_of(worker) for worker in workers) == 1000


def test_processes_forked_from_a_busy_one_share_one_exact_count(shared_uri, name):
    assert answer_of(start_worker("hit_after_fork", shared_uri, name, 1000, 8, 100)) == 1000


def test_a_forked_process_keeps_counting_with_the_others_when_its_parent_is_gone(uri, limits):
    remaining = answer_of(start_worker("orphan_after_fork", uri, "name", 10))
    assert remaining == 7
    assert limits.peek("name", 10).remaining == 7


def test_a_process_that_is_killed_at_work_takes_no_count_with_it_and_holds_nobody_up(shared_uri, name):
    start_at = time.time() + 1
    killed = start_worker("hit", shared_uri, name, 1_000_000, 8, 100_000, start_at)
    limits = RateLimits(storage_from_uri(shared_uri))
    assert wait_until(lambda: limits.peek(name, 1_000_000).remaining < 1_000_000, 30)
    killed.kill()
    killed.communicate()
    counted = 1_000_000 - limits.peek(name, 1_000_000).remaining
    began = time.monotonic()
    assert limits.hit(name, 1_000_000).remaining == 1_000_000 - counted - 1
    assert time.monotonic() - began < 2


def test_threads_share_one_exact_count_in_every_strategy(sqlite):
    limit = RateLimitItemPerMinute(100)
    for limiter in [strategy(sqlite) for strategy in STRATEGIES]:
        allowed = []

        def work(limiter=limiter, allowed=allowed):
            allowed.extend(limiter.hit(limit, "name") for _ in range(40))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(allowed), allowed.count(True)) == (320, 100)


def test_a_clock_set_back_locks_nobody_out_of_redis_for_longer_than_the_window(redis_url, name):
    storage = storage_from_uri(redis_url)
    limiter, limit = MovingWindowRateLimiter(storage), RateLimitItemPerSecond(3, 2)
    while limiter.hit(limit, name):
        pass
    # Redis keeps a clock of its own, by which it forgets.
    with time_machine.travel(time.time() - 3600):
        assert not limiter.hit(limit, name)
        assert wait_until(lambda: limiter.hit(limit, name), 4)


@pytest.mark.parametrize("attempt", range(5))
def test_four_processes_may_open_a_new_file_at_the_same_moment(uri, attempt):
    start_at = time.time() + 1
    workers = [start_worker("hit", uri, "name", 10, 1, 5, start_at) for _ in range(4)]
    assert sum(answer_of(worker) for worker in workers) == 10


# Memory and disk


def test_thousands_of_names_are_counted_and_then_removed(limits, clock, tmp_path):
    names = [f"ws_{number}" for number in range(5_000)]
    assert all(limits.hit(name, 2).remaining == 1 for name in names)
    assert all(limits.hit(name, 2).remaining == 0 for name in names)
    assert not any(limits.hit(name, 2).allowed for name in names)
    assert rows_in(tmp_path) >= 10_000
    clock.shift(200)
    for _ in range(12_000):
        limits.hit("busy", 10)
    assert rows_in(tmp_path) <= 20


@pytest.mark.parametrize("strategy", [FixedWindowRateLimiter, SlidingWindowCounterRateLimiter])
def test_counters_that_ended_are_removed(sqlite, clock, tmp_path, strategy):
    limiter, limit = strategy(sqlite), RateLimitItemPerMinute(1)
    for number in range(1_000):
        limiter.hit(limit, f"ws_{number}")
    clock.shift(200)
    for _ in range(2_000):
        limiter.hit(limit, "busy")
    assert rows_in(tmp_path) == 1


def test_counters_that_have_not_ended_are_kept(limits, clock):
    names = [f"ws_{number}" for number in range(300)]
    assert all(limits.hit(name, 1).allowed for name in names)
    clock.shift(59)
    for _ in range(1_000):
        limits.hit("busy", 10)
    assert not any(limits.hit(name, 1).allowed for name in names)


def test_a_busy_name_keeps_little_more_than_its_limit(limits, clock, tmp_path):
    for _ in range(3_000):
        limits.hit("busy", 100)
        clock.shift(0.7)
    assert rows_in(tmp_path) <= 100 + 70


def test_no_single_hit_pays_for_all_that_has_ended(limits, clock, tmp_path):
    for _ in range(6_000):
        limits.hit("busy", 100_000)
        limits.hit("idle", 100_000)
    clock.shift(300)
    counts = []
    for _ in range(40):
        counts.append(rows_in(tmp_path))
        for _ in range(64):
            limits.hit("busy", 100_000)
    assert rows_in(tmp_path) < 40 * 64 + 100
    assert max(before - after for before, after in itertools.pairwise(counts)) < 1_000


def test_hits_take_no_more_work_the_more_have_ended(limits, clock):
    def steps_of_sixty_four_hits(ended: int) -> int:
        for _ in range(ended):
            limits.hit(f"{ended} ended", 100_000)
        clock.shift(61)
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        connection = limits._storage._file._connection
        connection.set_progress_handler(step, 10)
        for _ in range(64):
            limits.hit(f"{ended} ended", 100_000)
        connection.set_progress_handler(None, 10)
        return steps

    assert 0 < steps_of_sixty_four_hits(20_000) < 2 * steps_of_sixty_four_hits(500)


def test_rows_left_by_a_clock_years_ahead_are_removed(limits, clock, tmp_path):
    clock.shift(10 * 365 * 86_400)
    for number in range(200):
        limits.hit(f"ws_{number}", 1)
    clock.move_to(NOON)
    for _ in range(2):
        for _ in range(2_000):
            limits.hit("busy", 1)
        clock.shift(200)
    assert rows_in(tmp_path) <= 3


# The clock


@pytest.mark.parametrize("step", [1, 3_600, 86_400])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("asks_first", [False, True])
def test_a_clock_set_back_locks_nobody_out_for_more_than_a_minute(sqlite, clock, step, strategy, asks_first):
    limiter, limit = strategy(sqlite), RateLimitItemPerMinute(5)
    while limiter.hit(limit, "name"):
        pass
    clock.shift(-step)
    # Whoever only asks, and never hits, must get in again as well.
    assert not (limiter.test(limit, "name") if asks_first else limiter.hit(limit, "name"))
    assert limiter.get_window_stats(limit, "name").reset_time <= time.time() + 60
    clock.shift(61)
    assert not asks_first or limiter.test(limit, "name")
    assert limiter.hit(limit, "name")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_clock_set_forward_locks_nobody_out(sqlite, clock, strategy):
    limiter, limit = strategy(sqlite), RateLimitItemPerMinute(5)
    while limiter.hit(limit, "name"):
        pass
    clock.shift(3_600)
    assert limiter.hit(limit, "name")


@pytest.mark.parametrize("step", [1, 3_600, 86_400])
@pytest.mark.parametrize("used", [1, 99, 100])
def test_a_clock_set_back_takes_nothing_from_a_limit_for_more_than_a_minute(counting, name, clock, step, used):
    assert all(counting.hit(name, 100).allowed for _ in range(used))
    clock.shift(-step)
    # Whoever goes on keeps the window from ending by itself.
    assert [counting.hit(name, 100).allowed for _ in range(101 - used)] == [True] * (100 - used) + [False]
    clock.shift(61.001)
    assert counting.peek(name, 100).remaining == 100
    assert all(counting.hit(name, 100).allowed for _ in range(100))


@pytest.mark.parametrize("seconds", [60, 3_600])
def test_a_clock_set_back_takes_nothing_from_a_limit_of_pages_for_longer_than_its_window(
    counting, name, clock, seconds
):
    """Pages count through the guarded storage, in windows of any length."""
    limiter = MovingWindowRateLimiter(GuardedStorage("portal://", limits=counting))
    limit = RateLimitItemPerSecond(10, seconds)
    assert all(limiter.hit(limit, name) for _ in range(9))
    clock.shift(-86_400)
    assert [limiter.hit(limit, name) for _ in range(2)] == [True, False]
    assert limiter.get_window_stats(limit, name) == (pytest.approx(time.time() + seconds), 0)
    clock.shift(seconds + 0.001)
    assert limiter.get_window_stats(limit, name).remaining == 10
    assert all(limiter.hit(limit, name) for _ in range(10))


def test_a_clock_set_forward_takes_nothing_from_a_limit(counting, name, clock):
    assert all(counting.hit(name, 100).allowed for _ in range(100))
    clock.shift(3_600)
    assert counting.peek(name, 100).remaining == 100
    assert all(counting.hit(name, 100).allowed for _ in range(100))


def test_a_clock_set_back_does_not_let_more_through(counting, name, clock):
    assert all(counting.hit(name, 5).allowed for _ in range(5))
    for step in (1, 3_600, 86_400):
        clock.shift(-step)
        peeked = counting.peek(name, 5)
        state = counting.hit(name, 5)
        assert (state.allowed, state.remaining) == (peeked.allowed, peeked.remaining) == (False, 0)
        for told in (peeked, state):
            assert told.reset_at - time.time() == pytest.approx(60, abs=0.001)


def test_clocks_of_nodes_that_differ_by_more_than_they_should_let_little_more_through(redis_url, name, clock):
    """Each hit of the node that is behind finds one of the other's in the future, as after a clock was set back."""
    limits = RateLimits(storage_from_uri(redis_url))
    allowed = 0
    for _ in range(1_000):
        clock.shift(5)
        allowed += limits.hit(name, 100).allowed
        clock.shift(-4.98)
        allowed += limits.hit(name, 100).allowed
    assert time.time() - NOON < 60
    assert allowed <= 110


# A storage that fails


def test_a_locked_file_is_reported_within_its_timeout_and_used_again_after_it(uri, tmp_path):
    limits = RateLimits(storage_from_uri(f"{uri}?timeout=0.2"))
    assert limits.hit("name", 9).allowed
    other = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started_at = time.monotonic()
    with pytest.raises(StoreUnavailable):
        limits.hit("name", 9)
    assert 0.2 <= time.monotonic() - started_at < 2
    assert not limits._storage.check()
    assert not (tmp_path / "limits.db.damaged").exists()
    other.execute("ROLLBACK")
    other.close()
    assert limits._storage.check()
    # Others are refused at once for as long as the failed try took.
    time.sleep(0.4)
    assert limits.hit("name", 9).remaining == 7


def test_threads_that_meet_a_locked_file_do_not_wait_one_after_the_other(uri, tmp_path):
    limits = RateLimits(storage_from_uri(f"{uri}?timeout=0.3"))
    limits.hit("name", 9)
    other = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    failures = []

    def work():
        with pytest.raises(StoreUnavailable) as caught:
            limits.hit("name", 9)
        failures.append(caught.value)

    started_at = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert len(failures) == 12
    assert time.monotonic() - started_at < 2


def test_a_short_lock_is_waited_for(limits, tmp_path):
    limits.hit("name", 9)
    other = sqlite3.connect(tmp_path / "limits.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    assert limits.hit("name", 9).remaining == 7
    release.join()
    other.close()


@pytest.mark.parametrize("file_exists", [True, False])
def test_a_place_that_cannot_be_written_is_reported(file_exists):
    folder = Path(tempfile.mkdtemp())
    try:
        if file_exists:
            storage = storage_from_uri(f"sqlite:///{folder}/limits.db")
            RateLimits(storage).hit("name", 9)
            storage.close()
            (folder / "limits.db").chmod(0o444)
        folder.chmod(0o555)
        assert answer_of(start_worker("hit_as_nobody", f"sqlite:///{folder}/limits.db")) == "StoreUnavailable"
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_full_disk_is_reported_until_there_is_room(uri, tmp_path):
    assert answer_of(start_worker("hit_on_a_full_disk", uri)) == ["StoreUnavailable", "allowed"]
    assert not (tmp_path / "limits.db.damaged").exists()


NO_DATABASE = b"not a database at all " * 500


def spoil(tmp_path):
    """Overwrite the file in its place, and the log in which its newest pages are."""
    for path in tmp_path.glob("limits.db*"):
        if path.name in ("limits.db", "limits.db-wal"):
            path.write_bytes(NO_DATABASE)


@pytest.mark.parametrize("first", ["hit", "peek", "check"])
def test_a_damaged_file_is_put_aside_and_service_goes_on(uri, tmp_path, first):
    storage = storage_from_uri(uri)
    limits = RateLimits(storage)
    (tmp_path / "limits.db").write_bytes(NO_DATABASE)
    ask = {"hit": lambda: limits.hit("name", 9).allowed, "peek": lambda: limits.peek("name", 9), "check": storage.check}
    assert ask[first]()
    assert (tmp_path / "limits.db.damaged").read_bytes() == NO_DATABASE
    remaining = limits.hit("name", 9).remaining
    other = RateLimits(storage_from_uri(uri))
    assert other.peek("name", 9).remaining == remaining


def test_who_has_the_damaged_file_open_counts_on_in_the_new_one(uri, tmp_path):
    first, second = (RateLimits(storage_from_uri(uri)) for _ in range(2))
    assert first.hit("name", 9).remaining == 8
    spoil(tmp_path)
    assert second.hit("name", 9).remaining == 8
    assert (tmp_path / "limits.db.damaged").exists()
    assert [limits.hit("name", 9).remaining for limits in (first, second, first)] == [7, 6, 5]


def test_damage_within_the_file_is_noticed_when_it_is_met(uri, tmp_path):
    """A file that opens well, but one of whose inner pages is nonsense."""
    limits = RateLimits(storage_from_uri(uri))
    for number in range(3000):
        limits.hit(f"name {number}", 9)
    limits._storage.close()
    content = bytearray((tmp_path / "limits.db").read_bytes())
    content[5 * 4096 :] = b"\xa5" * (len(content) - 5 * 4096)
    (tmp_path / "limits.db").write_bytes(content)
    for number in range(3000):
        assert limits.hit(f"name {number}", 9).allowed
    assert (tmp_path / "limits.db.damaged").exists()


def test_a_file_that_was_removed_is_made_again_for_all(uri, tmp_path):
    first, second = RateLimits(storage_from_uri(uri)), RateLimits(storage_from_uri(uri))
    assert [limits.hit("name", 9).remaining for limits in (first, second)] == [8, 7]
    os.remove(tmp_path / "limits.db")
    # Somebody's hand does not say so; each process looks now and then.
    time.sleep(0.2)
    assert [limits.hit("name", 9).remaining for limits in (first, second)] == [8, 7]


def test_a_lock_that_somebody_emptied_ends_no_process_and_loses_no_count(uri, tmp_path):
    first, second = RateLimits(storage_from_uri(uri)), RateLimits(storage_from_uri(uri))
    assert [limits.hit("name", 9).remaining for limits in (first, second)] == [8, 7]
    os.truncate(tmp_path / "limits.db.lock", 0)
    assert [limits.hit("name", 9).remaining for limits in (first, second)] == [6, 5]


def test_of_processes_that_meet_a_damaged_file_one_replaces_it_and_all_share_one_count(uri, tmp_path):
    workers = [start_worker("hit_around_damage", uri, tmp_path, 500, 200) for _ in range(4)]
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 4, 60)
    spoil(tmp_path)
    answers = [answer_of(worker) for worker in workers]
    assert (tmp_path / "limits.db.damaged").exists()
    # None of them counts in the file that was put aside.
    assert sum(answers) == 500


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(StoreUnavailable):
        RateLimits(storage_from_uri(f"sqlite:///{tmp_path}/nowhere/limits.db")).hit("name", 9)


def test_wrapped_failures_of_a_storage_are_reported_too(uri, tmp_path):
    (tmp_path / "limits.db").mkdir()
    limits = RateLimits(storage_from_string(uri, wrap_exceptions=True))
    for ask in (limits.hit, limits.peek):
        with pytest.raises(StoreUnavailable):
            ask("name", 9)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError(), RuntimeError(), AttributeError()], ids=repr)
def test_whatever_a_storage_raises_is_an_outage(uri, monkeypatch, error):
    def fail(*_):
        raise error

    for method in ("take", "look", "check"):
        monkeypatch.setattr(SQLiteStorage, method, fail)
    limits = RateLimits(storage_from_uri(uri))
    assert not limits.is_up()
    for ask in (limits.hit, limits.peek):
        with pytest.raises(StoreUnavailable):
            ask("name", 9)


def test_a_redis_that_is_away_is_reported():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    limits = RateLimits(storage_from_uri(f"redis://127.0.0.1:{port}"))
    for ask in (limits.hit, limits.peek):
        with pytest.raises(StoreUnavailable):
            ask("name", 9)


def test_a_redis_that_answers_and_takes_no_writing_is_not_up(redis_url, name):
    storage = storage_from_uri(redis_url)
    limits, server = RateLimits(storage), storage.get_connection()
    assert limits.is_up()
    server.config_set("min-replicas-to-write", 1)
    try:
        assert server.ping()
        assert not limits.is_up()
        with pytest.raises(StoreUnavailable):
            limits.hit(name, 9)
    finally:
        server.config_set("min-replicas-to-write", 0)
    assert limits.is_up()


def test_a_replica_of_redis_is_not_up(redis_url):
    storage = storage_from_uri(redis_url)
    limits, server = RateLimits(storage), storage.get_connection()
    server.replicaof("127.0.0.1", "1")
    try:
        assert server.ping()
        assert not limits.is_up()
    finally:
        server.replicaof("NO", "ONE")
    assert limits.is_up()


@pytest.mark.parametrize(("query", "at_least", "at_most"), [("", 1.5, 5), ("?socket_timeout=0.1", 0, 1.5)])
def test_a_redis_that_does_not_answer_is_reported(query, at_least, at_most):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limits = RateLimits(storage_from_uri(f"redis://127.0.0.1:{silent.getsockname()[1]}/0{query}"))
        started_at = time.monotonic()
        with pytest.raises(StoreUnavailable):
            limits.hit("name", 9)
        assert at_least <= time.monotonic() - started_at <= at_most


# Counting in memory while the storage is away


def test_with_a_fallback_limits_hold_in_memory_until_the_storage_is_back(uri, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("services.rate_limits._FIRST_PAUSE_SECONDS", 0.2)
    (tmp_path / "limits.db").mkdir()
    limits = RateLimits(storage_from_uri(uri), fallback=True)
    assert [limits.hit("name", 3).allowed for _ in range(5)] == [True] * 3 + [False] * 2
    assert limits.peek("name", 3).remaining == 0
    assert limits.in_memory
    assert not limits.is_up()
    (tmp_path / "limits.db").rmdir()
    wait_until(lambda: limits.hit("name", 3).allowed, 5)
    assert not limits.in_memory
    assert limits.is_up()
    other = RateLimits(storage_from_uri(uri))
    assert other.peek("name", 3).remaining == 2


def test_in_an_outage_one_request_at_a_time_tries_the_storage_and_less_and_less_often():
    now = [0.0]
    outage = Outage(clock=lambda: now[0])
    assert all(outage.may_try() for _ in range(3))
    outage.note_failure(StoreUnavailable(), now[0])
    tries = []
    for now[0] in [step / 10 for step in range(600)]:
        if outage.may_try():
            assert not outage.may_try()
            tries.append(now[0])
            outage.note_failure(StoreUnavailable(), now[0])
    pauses = [after - before for before, after in itertools.pairwise([0, *tries])]
    assert pauses[0] == pytest.approx(1, abs=0.2)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(15, abs=0.2)
    outage.note_success()
    assert all(outage.may_try() for _ in range(3))


@pytest.mark.parametrize(("fallback", "sentence"), [(True, "counted in the memory"), (False, "requests are refused")])
def test_the_log_tells_once_that_the_storage_is_away_and_once_that_it_is_back(
    uri, tmp_path, capsys, monkeypatch, fallback, sentence
):
    monkeypatch.setattr("services.rate_limits._FIRST_PAUSE_SECONDS", 0.0)
    logs.configure("json")
    (tmp_path / "limits.db").mkdir()
    limits = RateLimits(storage_from_uri(uri), fallback=fallback)
    for ask in (limits.hit, limits.peek, limits.hit):
        with contextlib.suppress(StoreUnavailable):
            ask("name", 9)
    (tmp_path / "limits.db").rmdir()
    for _ in range(3):
        limits.hit("name", 9)
    log = capsys.readouterr().err.splitlines()
    assert len(log) == 2
    assert sentence in log[0]
    assert "in their storage again" in log[1]


def test_a_try_that_began_before_the_storage_came_back_does_not_begin_another_outage():
    now = [10.0]
    outage = Outage(in_memory=False, clock=lambda: now[0])
    outage.note_failure(StoreUnavailable(), 9.0)
    outage.note_success()
    now[0] = 12.0
    outage.note_failure(StoreUnavailable(), 9.5)
    assert not outage.lasts
    outage.note_failure(StoreUnavailable(), 11.0)
    assert outage.lasts


def test_while_the_storage_hangs_one_request_at_a_time_tries_it_and_the_others_are_refused_at_once():
    now = [10.0]
    outage = Outage(in_memory=False, clock=lambda: now[0])
    assert outage.may_try()
    now[0] = 10.4
    outage.note_failure(StoreUnavailable(), 10.0)
    assert not outage.may_try()
    now[0] = 10.9
    assert [outage.may_try(), outage.may_try()] == [True, False]
    outage.note_success()
    assert all(outage.may_try() for _ in range(3))


def test_a_storage_that_fails_at_once_is_asked_by_every_request_and_served_at_its_return():
    now = [10.0]
    outage = Outage(in_memory=False, clock=lambda: now[0])
    outage.note_failure(StoreUnavailable(), 10.0)
    assert all(outage.may_try() for _ in range(3))


def test_a_redis_that_does_not_answer_holds_up_few_requests_when_there_is_a_fallback():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"redis://127.0.0.1:{silent.getsockname()[1]}/0?socket_timeout=0.3"
        limits = RateLimits(storage_from_uri(uri), fallback=True)
        started_at = time.monotonic()
        assert sum(limits.hit("name", 1000).allowed for _ in range(200)) == 200
        assert time.monotonic() - started_at < 2


# Addresses


def test_an_address_is_absolute_with_four_slashes_and_relative_with_three(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address, path in [
        (f"sqlite:///{tmp_path}/absolute.db", tmp_path / "absolute.db"),
        ("sqlite:///relative.db", tmp_path / "relative.db"),
        ("sqlite:///odd %3F%2520#name.db?timeout=1.5", tmp_path / "odd ?%20#name.db"),
    ]:
        storage = storage_from_uri(address)
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            assert RateLimits(storage).hit("name", 9).allowed
        storage.close()
        assert path.exists()


def test_limits_itself_finds_the_storage_and_gives_it_options(tmp_path):
    storage = storage_from_string(f"sqlite:///{tmp_path}/limits.db", timeout="0.5")
    assert isinstance(storage, SQLiteStorage)
    assert RateLimits(storage).hit("name", 9).allowed
    storage.close()


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://limits.db",
        "sqlite:///:memory:",
        "sqlite:///limits.db?timeout=soon",
        "sqlite:///limits.db?timeout=-1",
        "sqlite:///limits.db?timeout=nan",
        "sqlite:///limits.db?timeout=",
        "sqlite:///limits.db?mode=ro",
        "",
        "limits.db",
        "memory://",
        "async+memory://",
        "nosuch://operator:hush-hush@localhost",
        "redis://operator:hush-hush@localhost:port",
        "redis://operator:hush-hush@localhost:99999",
        "redis://operator:hush-hush@localhost/0?nonsense=1",
        "redis://operator:hush-hush@localhost/0?socket_timeout=soon",
        "redis://operator:hush-hush@localhost/0?protocol=9",
        "rediss://operator:hush-hush@localhost/0?ssl_cert_reqs=perhaps",
        "redis+unix:///socket?nonsense=1",
    ],
)
def test_a_wrong_address_is_refused_without_repeating_its_password(address):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_uri(address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_addresses_of_redis_and_valkey_are_taken_also_encrypted(scheme):
    assert isinstance(storage_from_uri(f"{scheme}://:hush@localhost:6379/1?socket_timeout=1"), RedisStorage)


def test_a_valkey_address_is_served_by_the_redis_client(redis_url, name):
    limits = RateLimits(storage_from_uri("valkey" + redis_url.removeprefix("redis")))
    assert limits.hit(name, 1).allowed
    assert not RateLimits(storage_from_uri(redis_url)).hit(name, 1).allowed
