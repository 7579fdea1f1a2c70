"""Turns: so many threads at a time, in the order they came, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from models.quick import DatabaseUnavailable
from services.errors import DatabaseAway
from services.turns import Turns

SOON = 0.05


def start(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_no_more_are_in_than_there_are_seats():
    turns, mutex, inside, most = Turns(2, 10), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with turns:
                with mutex:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0005)
                with mutex:
                    inside -= 1

    for thread in [start(work) for _ in range(8)]:
        thread.join(10)
    assert (inside, most) == (0, 2)


def test_who_is_in_alone_has_waited_for_all_and_lets_nobody_in_meanwhile():
    turns, inside, over = Turns(3, 10), set(), threading.Event()

    def work(number: int) -> None:
        while not over.is_set():
            with turns:
                inside.add(number)
                time.sleep(0.001)
                inside.remove(number)

    threads = [start(lambda number=number: work(number)) for number in range(8)]
    for _ in range(20):
        with turns.alone():
            assert not inside
            time.sleep(0.002)
            assert not inside
    over.set()
    for thread in threads:
        thread.join(10)


def test_who_gives_up_waiting_to_be_alone_leaves_every_seat_to_the_others():
    turns, told, over = Turns(3, SOON), [], threading.Event()

    def work() -> None:
        with suppress(DatabaseAway), turns:
            over.wait(10)

    def wait_to_be_alone() -> None:
        try:
            with turns.alone():
                told.append("alone")
        except DatabaseAway:
            told.append("away")

    threads = [start(work) for _ in range(2)]
    while turns._free > 1:
        time.sleep(0.001)
    alone = start(wait_to_be_alone)
    while len(turns._line) < 2:
        time.sleep(0.001)
    # One who stands behind, and gives up later.
    time.sleep(SOON / 2)
    threads.append(start(work))
    alone.join(10)
    assert turns._ended_well == 0, "whoever waits is not told that the line moves"
    over.set()
    for thread in threads:
        thread.join(10)
    assert told == ["away"]
    wait_to_be_alone()
    assert told == ["away", "alone"]
    assert (turns._free, len(turns._line)) == (3, 0)


def test_whoever_came_first_is_called_first():
    turns, order, threads = Turns(1, 10), [], []
    with turns:
        for number in range(6):

            def work(number: int = number) -> None:
                with turns:
                    order.append(number)

            threads.append(start(work))
            while len(turns._line) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == list(range(6))


def test_a_seat_that_was_left_by_an_error_is_free():
    turns = Turns(1, SOON)
    with pytest.raises(ValueError), turns:
        raise ValueError
    with turns:
        pass


def test_who_waits_too_long_is_told_that_the_database_is_away_and_the_line_goes_on():
    turns, told, called = Turns(1, SOON), [], threading.Event()

    def work() -> None:
        try:
            with turns:
                called.set()
        except DatabaseAway:
            told.append(1)

    with turns:
        for thread in [start(work) for _ in range(3)]:
            thread.join(10)
    assert told == [1, 1, 1]
    start(work).join(10)
    assert called.is_set()


def test_who_waits_long_in_a_line_that_moves_gets_a_turn():
    """Many calls at once on a slow machine are no sign that the database is away."""
    turns, done = Turns(1, 1.0), []

    def work() -> None:
        with turns:
            time.sleep(0.4)
        done.append(1)

    for thread in [start(work) for _ in range(6)]:
        thread.join(10)
    assert len(done) == 6


def test_a_line_in_which_each_turn_ends_with_the_database_away_does_not_move():
    turns, told = Turns(1, 1.0), []

    def work() -> None:
        try:
            with turns:
                # The second comes to its turn, and the third would after more than half a second too long.
                time.sleep(0.8)
                raise DatabaseUnavailable
        except (DatabaseUnavailable, DatabaseAway) as error:
            told.append(type(error))

    for thread in [start(work) for _ in range(6)]:
        thread.join(10)
    assert told.count(DatabaseAway) >= 4
