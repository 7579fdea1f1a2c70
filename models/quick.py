"""Single statements on the hot path: compiled once, run on a kept connection, each committed by itself.

The ORM costs about twenty times as much for the one read and the one write that every ``/v1`` call needs.
No transaction stays open between calls, so each read sees what was committed before it began. Where several statements
belong together, ``Quick.act`` commits them at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sqlalchemy import Delete, Dialect, Engine, Insert, Select, Update, bindparam, create_engine, func, select
from sqlalchemy import exc as sqlalchemy_errors

_POSTGRESQL_CONNECTIONS = 8
_WAIT_SECONDS = 10

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete


class DatabaseUnavailable(Exception):
    """The database did not take the statement: locked for too long, out of reach, or full."""


class Prepared:
    """A SELECT, INSERT, UPDATE or DELETE with named ``bindparam``s, made into SQL once for each dialect."""

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def compiled(self, dialect: Dialect) -> _Compiled:
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = _Compiled(self.statement, dialect)
        return found


class _Compiled:
    """The SQL text with the conversions of SQLAlchemy's own column types on the way in and out."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self.names = compiled.positiontup if compiled.positional else None
        self._in = {
            name: process
            for name, bind in compiled.binds.items()
            if (process := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        # Values that stand in the statement itself.
        self._fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        columns = statement.selected_columns if isinstance(statement, Select) else ()
        self._out = [
            (place, process)
            for place, column in enumerate(columns)
            if (process := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        ]

    def parameters(self, values: Mapping[str, Any]) -> Any:
        all_values = {**self._fixed, **values} if self._fixed else values
        given = {name: self._in[name](value) if name in self._in else value for name, value in all_values.items()}
        return given if self.names is None else [given[name] for name in self.names]

    def row(self, found: Any) -> list[Any] | None:
        if found is None:
            return None
        row = list(found)
        for place, process in self._out:
            row[place] = process(row[place])
        return row


class Quick:
    """The kept connections of one process: one for SQLite, where it doubles as a queue of writers, a few elsewhere."""

    def __init__(self, url: str) -> None:
        sqlite = url.startswith("sqlite")
        self.engine: Engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=1 if sqlite else _POSTGRESQL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_WAIT_SECONDS,
            pool_reset_on_return=None,
            hide_parameters=True,
        )
        _alive.add(self)

    def one(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any] | None:
        """Return the first row of a SELECT, or None. Raises DatabaseUnavailable."""
        found: list[Any] | None = self._run(statement, values, rows=1)
        return found

    def all(self, statement: Prepared, values: Mapping[str, Any]) -> list[list[Any]]:
        """Return every row of a SELECT. Raises DatabaseUnavailable."""
        found: list[list[Any]] = self._run(statement, values, rows=2)
        return found

    def run(self, statement: Prepared, values: Mapping[str, Any]) -> None:
        """Carry out an INSERT, UPDATE or DELETE; it is committed when this returns. Raises DatabaseUnavailable."""
        self._run(statement, values, rows=0)

    def _run(self, statement: Prepared, values: Mapping[str, Any], *, rows: int) -> Any:
        compiled = statement.compiled(self.engine.dialect)
        parameters = compiled.parameters(values)
        # A kept connection may have died while it lay idle, so a lost one is replaced once.
        for last_try in (False, True):
            try:
                connection = self.engine.raw_connection()
            except (*self._operational_errors, sqlalchemy_errors.TimeoutError) as error:
                raise DatabaseUnavailable from error
            try:
                cursor = connection.cursor()
                cursor.execute(compiled.sql, parameters)
                if rows == 0:
                    return None
                if rows == 1:
                    return compiled.row(cursor.fetchone())
                return [compiled.row(row) for row in cursor.fetchall()]
            except self._operational_errors as error:
                lost = self.engine.dialect.is_disconnect(error, connection.driver_connection, None)
                if lost:
                    # The others in the pool died with it.
                    connection.invalidate(error)
                    self.engine.dispose()
                if not lost or last_try:
                    raise DatabaseUnavailable from error
            finally:
                connection.close()
        raise AssertionError("the second try returns or raises")

    @contextmanager
    def act(self) -> Iterator[Act]:
        """Give statements that are committed together when the block ends, or not at all when it raises.

        On SQLite no other act runs meanwhile; on PostgreSQL the act says what it has to have for itself. Raises
        DatabaseUnavailable.
        """
        connection = self._begin()
        act = Act(connection.cursor(), self.engine.dialect)
        try:
            yield act
            act.cursor.execute("COMMIT")
        except self._operational_errors as error:
            self._undo(connection, act)
            raise DatabaseUnavailable from error
        except BaseException:
            self._undo(connection, act)
            raise
        finally:
            connection.close()

    def _begin(self) -> Any:
        # As in _run: a kept connection that died while it lay idle is replaced once.
        for last_try in (False, True):
            try:
                connection = self.engine.raw_connection()
            except (*self._operational_errors, sqlalchemy_errors.TimeoutError) as error:
                raise DatabaseUnavailable from error
            try:
                connection.cursor().execute("BEGIN IMMEDIATE" if self.engine.dialect.name == "sqlite" else "BEGIN")
                return connection
            except self._operational_errors as error:
                lost = self.engine.dialect.is_disconnect(error, connection.driver_connection, None)
                if lost:
                    connection.invalidate(error)
                    self.engine.dispose()
                connection.close()
                if not lost or last_try:
                    raise DatabaseUnavailable from error
        raise AssertionError("the second try returns or raises")

    def _undo(self, connection: Any, act: Act) -> None:
        try:
            act.cursor.execute("ROLLBACK")
        except self._operational_errors as error:
            # Whoever had it next would work inside this transaction.
            connection.invalidate(error)

    @property
    def broken_reference(self) -> type[Exception]:
        """What a statement raises for a row that names another which is gone."""
        driver: Any = self.engine.dialect.dbapi
        error: type[Exception] = driver.IntegrityError
        return error

    @property
    def _operational_errors(self) -> tuple[Any, ...]:
        driver: Any = self.engine.dialect.dbapi
        return (driver.OperationalError, driver.InterfaceError, driver.InternalError)


class Act:
    """The statements of one transaction on the hot path. Made by ``Quick.act``."""

    def __init__(self, cursor: Any, dialect: Dialect) -> None:
        self.cursor = cursor
        self._dialect = dialect

    def alone(self, name: str) -> None:
        """Wait until no other act of this name runs, in any process, as ``one_at_a_time`` does for the ORM."""
        if self._dialect.name == "postgresql":
            self._execute(_LOCK, {"name": name})

    def one(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any] | None:
        """Return the first row of a SELECT, or None."""
        return self._execute(statement, values).row(self.cursor.fetchone())

    def all(self, statement: Prepared, values: Mapping[str, Any]) -> list[list[Any]]:
        """Return every row of a SELECT."""
        compiled = self._execute(statement, values)
        return [row for found in self.cursor.fetchall() if (row := compiled.row(found)) is not None]

    def run(self, statement: Prepared, values: Mapping[str, Any]) -> int:
        """Carry out an INSERT, UPDATE or DELETE and return how many rows it met."""
        self._execute(statement, values)
        return int(self.cursor.rowcount)

    def _execute(self, statement: Prepared, values: Mapping[str, Any]) -> _Compiled:
        compiled = statement.compiled(self._dialect)
        self.cursor.execute(compiled.sql, compiled.parameters(values))
        return compiled


_LOCK = Prepared(select(func.pg_advisory_xact_lock(func.hashtext(bindparam("name")))))

_alive: WeakSet[Quick] = WeakSet()


def _forget_inherited_connections() -> None:
    for quick in _alive:
        quick.engine.dispose(close=False)


# A connection must not be shared with the parent of a forked worker.
os.register_at_fork(after_in_child=_forget_inherited_connections)
