"""The soak runs, and judges as it says. Minutes of it are run by hand: ``python -m bench.soak``."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest

from bench import soak
from bench.soak import Sample, connections_kept, connections_to, files_of, growths, most_in_a_window
from bench.soak_callers import Keys, Seen, Timetable
from config import ROOT
from tests.neighbours.portal import Portal
from tests.neighbours.storage import KINDS


@pytest.mark.alone
def test_a_few_seconds_of_the_soak_break_no_promise() -> None:
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.05", "--saturate", "1", "--kill-every", "1.5"]
    command += ["--storage", KINDS[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = [line for line in done.stdout.splitlines() if line.startswith("kept")]
    assert len(kept) >= 6
    assert "usage rows of answered calls lost: 0 of" in done.stdout


def test_each_minute_offers_four_fifths_of_what_was_answered_at_most_just_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_most, offered = iter([400, 200]), []

    def load(_portal: object, _keys: object, _callers: int, timetable: Timetable) -> Seen:
        if timetable.rate == float("inf"):
            return Seen(codes=Counter({"200": next(at_most)}))
        offered.append(timetable.rate)
        return Seen(codes=Counter({"200": 1}))

    monkeypatch.setattr(soak, "load", load)
    given = argparse.Namespace(minutes=2, saturate=2.0, kill_every=60.0)
    seen, _ = soak.minutes_of_load(cast(Portal, None), cast(Keys, None), 1, given)
    assert (offered, seen.total) == ([160, 80], 602)


def test_a_limit_that_was_exceeded_is_seen() -> None:
    calls = [(second / 2, second / 2 + 0.1) for second in range(240)]
    assert most_in_a_window(calls) == 120
    assert most_in_a_window([*calls, (30.2, 30.3)]) == 121
    assert most_in_a_window([(0.0, 100.0)]) == 0, "it cannot be known when that was counted"


def test_growth_that_goes_on_is_seen_and_a_worker_that_took_a_killed_ones_place_may_warm_up() -> None:
    def kept(mebibytes: Callable[[float], float]) -> list[bool]:
        samples = [Sample(at, int(mebibytes(at) * 2**20), 150, 30, 3) for at in range(2, 600, 2)]
        return [promise.kept for promise in growths(samples)]

    assert kept(lambda at: 200.0) == [True, True]
    assert kept(lambda at: 200 + 25 * at / 600) == [False, True]
    assert kept(lambda at: 170 + 30 * min(max(at - 298, 0) / 110, 1)) == [True, True]
    assert kept(lambda at: 170 + 30 * min(max(at - 298, 0) / 110, 1) + 25 * at / 600) == [False, True]


def test_a_file_that_is_left_open_again_and_again_is_seen_and_connections_in_use_are_none() -> None:
    def kept(files: Callable[[float], int], to_provider: Callable[[float], int]) -> list[bool]:
        samples = [Sample(at, 2**20, files(at), to_provider(at), 3) for at in range(2, 600, 2)]
        return [promise.kept for promise in (*growths(samples), connections_kept(samples))]

    assert kept(lambda at: 150, lambda at: 30 + int(at) % 40) == [True, True, True]
    assert kept(lambda at: 150 + int(at) // 30, lambda at: 30) == [True, False, True]
    assert kept(lambda at: 150, lambda at: 30 + int(at) // 5) == [True, True, False]


def test_connections_to_the_provider_are_told_from_other_files() -> None:
    with socket.create_server(("127.0.0.1", 0)) as provider:
        port = provider.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            (found,) = connections_to(port)
            assert found == os.readlink(f"/proc/self/fd/{connection.fileno()}")
            assert found in files_of(os.getpid())
