"""A pytest plugin that puts our storage in the place of those for which ``limits`` wrote its tests.

Loaded by ``test_limits_own_suite.py`` in a process of its own, as ``limits_suite_plugin``: the tests of ``limits`` are
a package of the name ``tests`` as well. https://github.com/alisaifee/limits/tree/5.8.0/tests
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from limits.storage import RedisStorage, storage_from_string

from services.rate_limit_storage import SQLiteStorage
from services.redis_windows import RedisWindows

URI = os.environ["LIMITS_SUITE_URI"]
_KIND = URI.partition(":")[0]
_NAMES = "uri, args, fixture"
_TRIES = 3


def _stand_in(name: str, **content: Any) -> None:
    """Let a module be imported that is asked for only by fixtures which nobody uses here."""
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    vars(module).update(content)
    sys.modules[name] = module


# Their conftest.py is loaded before any hook is called.
for _name in ("pymemcache", "pymemcache.client", "pymongo", "valkey"):
    _stand_in(_name)
_stand_in("pytest_lazy_fixtures", lf=lambda name: None)


class WindowsInRedis(RedisStorage):
    """Redis with our moving windows, by which calls are counted, in the place of its own. Only these tests need it."""

    STORAGE_SCHEME = ["windows+redis"]  # noqa: RUF012 - declared so by limits

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri.removeprefix("windows+"), **options)
        self._windows = RedisWindows(self)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self._windows.take([(key, limit)], expiry, amount)[0].allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        (window,) = self._windows.look([(key, limit)], expiry)
        return window.leaving_at, window.hits

    def clear(self, key: str) -> None:
        super().clear(key)
        super().clear(f"{key}/times")


_CLASSES = {"sqlite": SQLiteStorage, "redis": RedisStorage, "windows+redis": WindowsInRedis}


def pytest_configure() -> None:
    import tests.utils as utils

    ours = pytest.mark.parametrize(_NAMES, [pytest.param(URI, {}, None, id=_KIND)])
    for name in ("all_storage", "moving_window_storage", "sliding_window_counter_storage"):
        assert hasattr(utils, name)
        setattr(utils, name, ours)


def pytest_pycollect_makeitem(name: str, obj: Any) -> None:
    # This class has a list of storages of its own.
    if name == "TestConcreteStorages":
        names = "uri, args, expected_instance, fixture"
        obj.pytestmark = [pytest.mark.parametrize(names, [pytest.param(URI, {}, _CLASSES[_KIND], None, id=_KIND)])]


@pytest.fixture(autouse=True)
def _emptied() -> Iterator[None]:
    storage = storage_from_string(URI)
    storage.reset()
    yield
    storage.reset()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Repeat what its authors have marked as flaky: it compares times with a margin of 30 milliseconds."""
    if item.get_closest_marker("flaky") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for number in range(1, _TRIES + 1):
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if number == _TRIES or not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
