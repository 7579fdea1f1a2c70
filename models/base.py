"""What every model shares: ids, UTC time, column types and the one way to change something."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    String,
    Text,
    delete,
    func,
    inspect,
    select,
)
from sqlalchemy.orm import Session, mapped_column
from sqlalchemy.types import TypeDecorator

from extensions import Base, db

__all__ = [
    "Base",
    "Id",
    "Moment",
    "OptionalMoment",
    "RowNumber",
    "UTCDateTime",
    "Words",
    "delete_some",
    "new_id",
    "now",
    "one_at_a_time",
    "transaction",
]

_ID_ALPHABET = string.digits + string.ascii_letters
_OPEN = "act_in_progress"


def new_id(prefix: str) -> str:
    """Return a fresh public id such as ``key_6PzQ...``: 20 random base-62 characters, about 119 bits."""
    return f"{prefix}_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))


def now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """A moment that is always aware and in UTC; SQLite alone would give it back without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = _in_utc(value)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        # Every call to ``/v1`` writes two moments, and SQLAlchemy's way to SQLite's text has three steps.
        return _as_sqlite_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError("a moment without a time zone cannot be stored")
    return value.astimezone(UTC)


def _as_sqlite_text(value: datetime | None) -> str | None:
    """Return the text that SQLAlchemy keeps a moment as in SQLite."""
    return None if value is None else _in_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds")


class Words(TypeDecorator[list[str]]):
    """A list of words without spaces, such as scopes, kept as one readable text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> str | None:
        if value is not None and any(" " in word or not word for word in value):
            raise ValueError("a word must not be empty or hold a space")
        return None if value is None else " ".join(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> list[str] | None:
        return None if value is None else value.split()

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        # Every call to ``/v1`` reads four of them, and SQLAlchemy's way has a step more.
        return lambda value: None if value is None else value.split()


# SQLite numbers rows by itself only in a column declared INTEGER.
_BIG_INTEGER = BigInteger().with_variant(Integer(), "sqlite")

Id = Annotated[str, mapped_column(String(32), primary_key=True)]
RowNumber = Annotated[int, mapped_column(_BIG_INTEGER, primary_key=True, autoincrement=True)]
Moment = Annotated[datetime, mapped_column(UTCDateTime())]
OptionalMoment = Annotated[datetime | None, mapped_column(UTCDateTime())]


@contextmanager
def transaction() -> Iterator[Session]:
    """Wrap one act: everything inside is committed together, or nothing is.

    Takes the write lock at its start on SQLite (``BEGIN IMMEDIATE``), so that what is read inside still
    holds when it is written; on PostgreSQL the act locks the rows it depends on by itself. An act that
    calls another act joins it. Reads made before are forgotten, so that no stale value decides.
    """
    session = db.session()
    if session.info.get(_OPEN):
        yield session
        return
    session.rollback()
    session.info[_OPEN] = True
    try:
        options: dict[str, Any] = {"begin_immediate": True}
        session.connection(execution_options=options)
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.info.pop(_OPEN, None)


def one_at_a_time(name: str) -> None:
    """Let only one act with this name run at once, over all processes, until its transaction ends.

    On SQLite every act already is alone; on PostgreSQL this takes an advisory lock.
    """
    session = db.session()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


def delete_some(model: type[Base], condition: ColumnElement[bool], most: int = 500) -> bool:
    """Delete at most so many rows, so that other writers need not wait for long; tell whether there may be more."""
    (key,) = inspect(model).primary_key
    # A look first: most of the time there is nothing, and no reason to take the write lock.
    found = list(db.session.scalars(select(key).where(condition).limit(most)))
    if not found:
        return False
    with transaction() as session:
        session.execute(delete(model).where(key.in_(found), condition))
    return len(found) == most
