"""Rows of a table as lists that JSON can hold, the same from SQLite and from PostgreSQL, and back into a table."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.types import DateTime, TypeEngine

from models.base import UTCDateTime

Row = list[Any]
_AT_ONCE = 1000


def read(connection: Connection, table: Table) -> Iterator[Row]:
    """Yield every row in the order of the primary key: a few at a time, so that memory stays bounded."""
    typed = _typed(table)
    columns = [cast(column, Text) if isinstance(column.type, JSON) else column for column in typed.columns]
    query = select(*columns).order_by(*(typed.c[column.name] for column in table.primary_key))
    options = {"stream_results": True, "yield_per": _AT_ONCE}
    for row in connection.execute(query, execution_options=options):
        yield [_plain(value) for value in row]


def write(connection: Connection, table: Table, rows: Iterable[Row]) -> int:
    """Insert rows that ``read`` gave and return their number. Raises ValueError for what is no such row."""
    typed = _typed(table)
    readers = [(column.name, _reader(column.type)) for column in typed.columns]
    written = 0
    rows = iter(rows)
    while some := list(itertools.islice(rows, _AT_ONCE)):
        connection.execute(insert(typed), [_values(readers, row) for row in some])
        written += len(some)
    return written


def count(connection: Connection, table: Table) -> int:
    """Return the number of rows."""
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _typed(table: Table) -> Table:
    """Return the table with types that mean the same in every database."""
    return Table(table.name, MetaData(), *(Column(column.name, _type(column)) for column in table.columns))


def _type(column: Column[Any]) -> TypeEngine[Any]:
    if isinstance(column.type, DateTime):
        return UTCDateTime()
    if isinstance(column.type, JSON):
        # A JSON null and no value at all are two things.
        return JSON(none_as_null=True)
    for kind in (Boolean, LargeBinary, Float):
        if isinstance(column.type, kind):
            return kind()
    if isinstance(column.type, Integer):
        return BigInteger()
    if isinstance(column.type, String):
        return Text()
    raise TypeError(f"{column} has a type that cannot be kept in a backup: {column.type!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    return value


def _values(readers: list[tuple[str, Callable[[Any], Any]]], row: Row) -> dict[str, Any]:
    if not isinstance(row, list) or len(row) != len(readers):
        raise ValueError("a row has not as many values as the table has columns")
    return {
        name: None if value is None else read_value(value)
        for (name, read_value), value in zip(readers, row, strict=True)
    }


def _reader(kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    if isinstance(kind, UTCDateTime):
        return lambda text: datetime.fromisoformat(text).astimezone(UTC)
    if isinstance(kind, LargeBinary):
        return lambda text: base64.b64decode(text, validate=True)
    if isinstance(kind, JSON):
        return lambda text: JSON.NULL if text == "null" else json.loads(text)
    return lambda value: value
