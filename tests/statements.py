"""Lets the apps of a test process share the statements that SQLAlchemy compiles, which it keeps for each engine."""

from __future__ import annotations

from sqlalchemy import Engine

_first: dict[str, Engine] = {}


def share(engine: Engine) -> None:
    """Let an engine that has not connected yet find what the first of its kind has compiled."""
    first = _first.setdefault(engine.dialect.name, engine)
    # A statement is found by the dialect that it was compiled for.
    engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
