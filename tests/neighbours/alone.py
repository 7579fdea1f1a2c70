"""A test marked ``alone`` measures time or loads the machine: while it runs, no other pytest worker runs a test.

Each worker holds a lock on a common file while it runs a test, shared for an ordinary one and exclusive for one that is
to be alone. Who waits for the exclusive lock stands in a gate that all have to pass, so that it comes to its turn.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

MARK = "alone"


class Turns:
    """The locks of one worker on the files that all workers of a test run share."""

    def __init__(self, folder: Path) -> None:
        self._gate, self._room = (os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in ("gate", "room"))

    @contextlib.contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for the turn, and hold it for the length of a ``with`` block."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)


_turns = pytest.StashKey[Turns]()
_folder = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


class _Conductor:
    """In the process that starts the workers: gives them the folder for the locks."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        config: pytest.Config = node.config  # type: ignore[attr-defined]
        if _folder not in config.stash:
            config.stash[_folder] = tempfile.TemporaryDirectory(prefix="arka-turns-")
        node.workerinput["turns"] = config.stash[_folder].name  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}: measures time or loads the machine, so no other test runs beside it")
    if hasattr(config, "workerinput"):
        config.stash[_turns] = Turns(Path(config.workerinput["turns"]))
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
    with turns.turn(alone=item.get_closest_marker(MARK) is not None):
        return (yield)
