"""Loads the fixtures; they live beside what they offer."""

from __future__ import annotations

pytest_plugins = [
    "tests.neighbours.network_guard",
    "tests.neighbours.skips",
    "tests.neighbours.fixtures",
    "tests.neighbours.storage",
    "tests.tables",
    "tests.people",
]
