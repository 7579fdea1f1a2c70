"""A migration only adds, so that the code of the version before serves on while nodes are replaced one by one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

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
        known = set(table.columns.keys())
        new = _uniques(now) - _uniques(table)
        found += [f"{table.name} has to be unique in {names}" for names in new if set(names) <= known]
        for names, rule in _rules(now) - _rules(table):
            if set(names) <= known:
                found.append(f"{table.name} has a new rule: {rule}")
    return found


def _rules(table: Table) -> set[tuple[tuple[str, ...], str]]:
    """The conditions and references that rows have to meet: the columns they are about, and what they say."""
    found = set()
    of_columns = [one for column in table.columns for one in column.constraints]
    for one in (*table.constraints, *of_columns):
        if isinstance(one, ForeignKeyConstraint):
            targets = ", ".join(element.target_fullname for element in one.elements)
            found.add((tuple(one.column_keys), f"{', '.join(one.column_keys)} in {targets}"))
        elif isinstance(one, CheckConstraint):
            text = str(one.sqltext)
            words = re.findall(r"\w+", text)
            found.add((tuple(column.name for column in table.columns if column.name in words), text))
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
    bound = tables(Column("a", Integer, ForeignKey("other.id")), Column("b", String(5)))
    assert breaks(before, bound) == ["t has a new rule: a in other.id"]
    checked = tables(Column("a", Integer), Column("b", String(5), CheckConstraint("b <> ''")))
    assert breaks(before, checked) == ["t has a new rule: b <> ''"]
    of_its_own = Column("c", Integer, ForeignKey("other.id"), CheckConstraint("c > 0"))
    assert breaks(before, tables(Column("a", Integer), Column("b", String(5)), of_its_own)) == []
