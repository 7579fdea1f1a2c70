"""What a running portal keeps, looked at from outside, whichever database it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Executable, MetaData, create_engine, select, text

from config import load
from tests.neighbours.portal import Portal


@contextmanager
def connected(portal: Portal) -> Iterator[Connection]:
    """Open a transaction in the portal's database, which is committed in the end."""
    engine = create_engine(load(portal.environment).database_url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def run(portal: Portal, statement: Executable | str) -> list[tuple[Any, ...]]:
    """Carry out one statement; return its rows, none for one that only changes something."""
    with connected(portal) as connection:
        result = connection.execute(text(statement) if isinstance(statement, str) else statement)
        return [tuple(row) for row in result] if result.returns_rows else []


def tables(portal: Portal) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, by the table's name."""
    with connected(portal) as connection:
        there = MetaData()
        there.reflect(connection)
        assert there.tables
        return {
            name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for name, table in there.tables.items()
        }
