"""A migration only adds, so that the code of the version before serves on while nodes are replaced one by one."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Column, Integer, MetaData, String, Table, UniqueConstraint

from config import ROOT
from services import schema

# What came before was never in use anywhere.
FIRST = 4
REVISIONS = [
    path.name[:4]
    for path in sorted((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    if int(path.name[:4]) >= FIRST
]


def breaks(before: MetaData, after: MetaData) -> list[str]:
    """Return what keeps statements of the version before from working on the tables after."""
    found = []
    for table in before.tables.values():
        now = after.tables.get(table.name)
        if now is None:
            found.append(f"{table.name} is gone")
            continue
        found += [f"{table.name}.{column.name} is gone" for column in table.columns if column.name not in now.columns]
        for column in now.columns:
            old = table.columns.get(column.name)
            stricter = not column.nullable and column.server_default is None and (old is None or old.nullable)
            if stricter:
                found.append(f"{table.name}.{column.name} is not filled by INSERTs of before")
            if old is not None and str(old.type) != str(column.type):
                found.append(f"{table.name}.{column.name} was {old.type} and is {column.type}")
        new = _uniques(now) - _uniques(table)
        found += [
            f"{table.name} has to be unique in {names}" for names in new if set(names) <= set(table.columns.keys())
        ]
    return found


def _uniques(table: Table) -> set[tuple[str, ...]]:
    constraints = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    indexes = [index for index in table.indexes if index.unique]
    return {tuple(sorted(column.name for column in one.columns)) for one in (*constraints, *indexes)}


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_the_version_before_writes_still_fits(app: Flask, revision: str) -> None:
    before, after = schema.tables_at(f"{int(revision) - 1:04}"), schema.tables_at(revision)
    assert breaks(before, after) == []


def test_what_breaks_is_recognised() -> None:
    def tables(*columns: Column[Any], name: str = "t") -> MetaData:
        found = MetaData()
        Table(name, found, *columns)
        return found

    before = tables(Column("a", Integer, nullable=True), Column("b", String(5)))
    assert breaks(before, tables(Column("a", Integer), Column("b", String(5)), Column("c", String))) == []
    assert breaks(before, tables(Column("a", Integer), name="other")) == ["t is gone"]
    assert breaks(before, tables(Column("a", Integer))) == ["t.b is gone"]
    assert len(breaks(before, tables(Column("a", Integer, nullable=False), Column("b", String(3))))) == 2
    added = tables(Column("a", Integer), Column("b", String(5)), Column("c", Integer, nullable=False))
    assert breaks(before, added) == ["t.c is not filled by INSERTs of before"]
    filled = Column("c", Integer, nullable=False, server_default="1")
    assert breaks(before, tables(Column("a", Integer), Column("b", String(5)), filled)) == []
    unique = tables(Column("a", Integer, unique=True), Column("b", String(5)))
    assert breaks(before, unique) == ["t has to be unique in ('a',)"]
