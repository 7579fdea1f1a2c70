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
from limits.storage import storage_from_string

from services.rate_limit_storage import SQLiteStorage

URI = os.environ["LIMITS_SUITE_URI"]
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


def pytest_configure() -> None:
    import tests.utils as utils

    ours = pytest.mark.parametrize(_NAMES, [pytest.param(URI, {}, None, id="sqlite")])
    for name in ("all_storage", "moving_window_storage", "sliding_window_counter_storage"):
        assert hasattr(utils, name)
        setattr(utils, name, ours)


def pytest_pycollect_makeitem(name: str, obj: Any) -> None:
    # This class has a list of storages of its own.
    if name == "TestConcreteStorages":
        names = "uri, args, expected_instance, fixture"
        obj.pytestmark = [pytest.mark.parametrize(names, [pytest.param(URI, {}, SQLiteStorage, None, id="sqlite")])]


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
