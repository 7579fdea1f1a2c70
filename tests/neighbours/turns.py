"""Which tests of a run with several workers go on at the same time.

With ``-n auto`` there is a seat more than there are processors, because an ordinary test waits as well, for a database
or a browser, and one worker more than seats. An ordinary test takes a seat. One marked ``waits`` spends most of its
time waiting and takes none, so that the processors are not idle meanwhile. One marked ``alone`` measures time or loads
the machine: while it runs, no other worker runs a test.

Each worker holds a lock on a common file while it runs a test, shared for an ordinary one and exclusive for one that is
to be alone. Who waits for the exclusive lock stands in a gate that all have to pass, so that it comes to its turn.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ALONE, WAITS = "alone", "waits"
_LOOK_SECONDS = 0.005


class Turns:
    """The locks of one worker on the files that all workers of a test run share."""

    def __init__(self, folder: Path, seats: int = 1) -> None:
        names = ["gate", "room", *(f"seat-{number}" for number in range(seats))]
        self._gate, self._room, *self._seats = (os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in names)

    @contextlib.contextmanager
    def turn(self, *, alone: bool = False, seated: bool = True) -> Iterator[None]:
        """Wait for the turn, and hold it for the length of a ``with`` block."""
        with self._seat() if seated else contextlib.nullcontext():
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)
            try:
                yield
            finally:
                fcntl.flock(self._room, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _seat(self) -> Iterator[None]:
        """Wait for a seat, and hold it. One whose worker has died is free."""
        for seat in itertools.cycle(self._seats):
            try:
                fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_SECONDS)
                continue
            try:
                yield
            finally:
                fcntl.flock(seat, fcntl.LOCK_UN)
            return


_turns = pytest.StashKey[Turns]()
_folder = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()
_seats = pytest.StashKey[int]()


class _Conductor:
    """In the process that starts the workers: gives them the folder for the locks."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        config: pytest.Config = node.config  # type: ignore[attr-defined]
        if _folder not in config.stash:
            config.stash[_folder] = tempfile.TemporaryDirectory(prefix="arka-turns-")
        seats = config.stash.get(_seats, config.option.numprocesses)
        node.workerinput.update(turns=config.stash[_folder].name, seats=seats)  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    processors = yield
    config.stash[_seats] = processors + 1
    return processors + 2


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{ALONE}: measures time or loads the machine, so no other test runs beside it")
    config.addinivalue_line("markers", f"{WAITS}: waits most of its time, so it runs beside as many as ever")
    if hasattr(config, "workerinput"):
        config.stash[_turns] = Turns(Path(config.workerinput["turns"]), config.workerinput["seats"])
    else:
        config.pluginmanager.register(_Conductor())


def pytest_unconfigure(config: pytest.Config) -> None:
    if _folder in config.stash:
        config.stash[_folder].cleanup()


# Outside of everything else, so that the wait counts neither as the test's time nor toward its limit.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    turns = item.config.stash.get(_turns, None)
    if turns is None:
        return (yield)
    alone, waits = (item.get_closest_marker(mark) is not None for mark in (ALONE, WAITS))
    with turns.turn(alone=alone, seated=not (alone or waits)):
        return (yield)
