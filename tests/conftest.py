"""Loads the fixtures; they live beside what they offer."""

from __future__ import annotations

import gc

pytest_plugins = [
    "tests.neighbours.network_guard",
    "tests.neighbours.skips",
    "tests.neighbours.turns",
    "tests.neighbours.fixtures",
    "tests.neighbours.storage",
    "tests.tables",
    "tests.url_rules",
    "tests.people",
]


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is loaded by now: a million objects, all there to the end."""
    gc.collect()
    gc.freeze()
