"""Single statements on the hot path: compiled once, run on a kept connection, each committed by itself.

The ORM costs about twenty times as much for the one read and the one write that every ``/v1`` call needs.
No transaction stays open between calls, so each read sees what was committed before it began. Where several statements
belong together, ``Quick.act`` commits them at once.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    JSON,
    Boolean,
    Delete,
    Dialect,
    Engine,
    Insert,
    LargeBinary,
    NullPool,
    Select,
    Update,
    bindparam,
    create_engine,
    func,
    insert,
    select,
    table,
)
from sqlalchemy.types import TypeEngine

from models import postgresql, sqlite
from models.sqlite import BUSY_TIMEOUT_SECONDS

_POSTGRESQL_CONNECTIONS = 8
# Statements take milliseconds: whoever waits for longer than this waits for a database that hangs.
_POSTGRESQL_WAIT_SECONDS = 3

# Where services.checkpoints cannot keep the log short, because two busy workers never pause at once, SQLite does.
_LONGEST_LOG_PAGES = 10_000

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


class PreparedRow:
    """An INSERT of one row of a table, made into SQL once for each set of columns that have a value.

    Most columns of a usage row are empty, and SQLite's driver takes as long over a None as over several other values.
    """

    def __init__(self, model: type[Any]) -> None:
        self._model = model
        self._prepared: dict[tuple[str, ...], Prepared] = {}

    def of(self, values: Mapping[str, Any]) -> Prepared:
        """Return the INSERT for a row with these values. A column that has none is left to the database: NULL."""
        names = tuple([name for name, value in values.items() if value is not None])
        found = self._prepared.get(names)
        if found is None:
            statement = insert(self._model).values({name: bindparam(name) for name in names})
            found = self._prepared[names] = Prepared(statement)
        return found


class _Compiled:
    """The SQL text with the conversions of SQLAlchemy's own column types on the way in and out."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        # Some literals are put into the text at the last moment, whatever the values are.
        whole = compiled.construct_expanded_state(
            {name: None for name, bind in compiled.binds.items() if bind.required}
        )
        self.sql = whole.statement
        self._positional = compiled.positional
        names = whole.positiontup if compiled.positional else whole.parameters
        assert names is not None
        self._names = list(names)
        self._pick = _picker(self._names)
        changes = [_change_on_the_way_in(compiled.binds[name].type, dialect) for name in names]
        # Few of the values are to be changed on their way in.
        self._changes = [(place, change) for place, change in enumerate(changes) if change is not None]
        # Values that stand in the statement itself.
        self._fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        columns = statement.selected_columns if isinstance(statement, Select) else ()
        self._out = [
            (place, process)
            for place, column in enumerate(columns)
            if (process := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        ]

    def parameters(self, values: Mapping[str, Any]) -> Any:
        if self._fixed:
            values = {**self._fixed, **values}
        found = list(self._pick(values))
        for place, change in self._changes:
            # NULL is NULL in every column, and most of those that need a change are empty for most calls.
            if found[place] is not None:
                found[place] = change(found[place])
        return found if self._positional else dict(zip(self._names, found, strict=True))

    def row(self, found: Any) -> list[Any] | None:
        if found is None:
            return None
        row = list(found)
        for place, process in self._out:
            if row[place] is not None:
                row[place] = process(row[place])
        return row


def _picker(names: list[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """Return what takes the values of these names out of a mapping, in their order."""
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda values: [values[name] for name in names]


def _change_on_the_way_in(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what a value goes through before the driver gets it; None: nothing."""
    if isinstance(kind, JSON) and not kind.none_as_null:
        raise TypeError("None is NULL here, not JSON's null")
    if dialect.name == "sqlite":
        # Of these its driver takes bool and bytes too, but asks its adapters about each.
        if isinstance(kind, Boolean):
            return int
        if isinstance(kind, LargeBinary):
            return bytearray
    # PostgreSQL's driver takes a bool as it is; SQLAlchemy would look at each.
    return None if isinstance(kind, Boolean) else kind.dialect_impl(dialect).bind_processor(dialect)


class _Kept:
    """The connections of the driver that one process keeps: the one used last comes first, and no more than ``most``.

    SQLAlchemy's own pool costs as much for each statement as a small statement itself.
    """

    def __init__(self, connect: Callable[[], Any], most: int, wait_seconds: float) -> None:
        self._connect = connect
        self.most = most
        self.wait_seconds = wait_seconds
        self._idle: list[Any] = []
        self.begin_anew()

    @property
    def in_use(self) -> int:
        return self.most - self._turns.qsize()

    def take(self) -> Any:
        """Return a connection, a new one if none is idle. Raises queue.Empty when all are in use for too long."""
        self._turns.get(timeout=self.wait_seconds)
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._connect()
        except BaseException:
            self._turns.put(None)
            raise

    def give_back(self, connection: Any) -> None:
        self._idle.append(connection)
        self._turns.put(None)

    def drop(self, connection: Any) -> None:
        """Close a connection in use that is of no use any more."""
        self._turns.put(None)
        with suppress(Exception):
            connection.close()

    def close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(Exception):
                connection.close()

    def begin_anew(self) -> None:
        """Forget all connections without closing one: after a fork they are the parent's."""
        _inherited.extend(self._idle)
        self._idle = []
        self._turns: SimpleQueue[None] = SimpleQueue()
        for _ in range(self.most):
            self._turns.put(None)


class Quick:
    """The kept connections of one process: one for SQLite, where it doubles as a queue of writers, a few elsewhere."""

    def __init__(self, url: str) -> None:
        on_sqlite = url.startswith("sqlite")
        self._engine: Engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={} if on_sqlite else postgresql.hot_path(),
        )
        self._dialect = self._engine.dialect
        # Of SQLite's file, which tells it from another under its name.
        self._opened: tuple[int, int] | None = None
        if on_sqlite:
            self._kept = _Kept(self._connect, 1, BUSY_TIMEOUT_SECONDS)
        else:
            self._kept = _Kept(self._connect, _POSTGRESQL_CONNECTIONS, _POSTGRESQL_WAIT_SECONDS)
        driver: Any = self._dialect.dbapi
        self._operational_errors = (driver.OperationalError, driver.InterfaceError, driver.InternalError)
        self._integrity_error: type[Exception] = driver.IntegrityError
        _alive.add(self)

    @property
    def wait_seconds(self) -> float:
        """How long a statement waits for one of them."""
        return self._kept.wait_seconds

    @property
    def in_use(self) -> int:
        """How many connections are at work now."""
        return self._kept.in_use

    def close(self) -> None:
        """Close the idle connections; the next statement opens one."""
        self._kept.close_idle()

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
        compiled = statement.compiled(self._dialect)
        connection, cursor = self._execute(compiled.sql, compiled.parameters(values))
        try:
            if rows == 0:
                return None
            if rows == 1:
                return compiled.row(cursor.fetchone())
            return [compiled.row(row) for row in cursor.fetchall()]
        except self._operational_errors as error:
            raise DatabaseUnavailable from error
        finally:
            cursor.close()
            self._kept.give_back(connection)

    def _execute(self, sql: str, parameters: Any) -> tuple[Any, Any]:
        """Carry out a statement and return the connection, which the caller must give back, and its cursor."""
        # A kept connection may have died while it lay idle, so a lost one is replaced once.
        for last_try in (False, True):
            try:
                connection = self._kept.take()
            except (*self._operational_errors, Empty) as error:
                raise DatabaseUnavailable from error
            try:
                return connection, connection.execute(sql, parameters)
            except self._operational_errors as error:
                if not self._was_lost(connection, error) or last_try:
                    raise DatabaseUnavailable from error
            except self._integrity_error as error:
                self._kept.give_back(connection)
                # The first try was lost after it had been carried out, or it was never to be.
                raise (DatabaseUnavailable if last_try else error) from error
            except BaseException:
                self._kept.give_back(connection)
                raise
        raise AssertionError("the second try returns or raises")

    def _was_lost(self, connection: Any, error: Any) -> bool:
        """Give back a connection that failed, or drop it if it is lost; tell whether it may have been so before we
        asked."""
        if not self._dialect.is_disconnect(error, connection, None):
            self._kept.give_back(connection)
            return False
        self._kept.drop(connection)
        # The others died with it.
        self._kept.close_idle()
        # Who has waited so long had better be told, and what he asked for may yet be done.
        return not getattr(error, "may_yet_be_done", False)

    def _connect(self) -> Any:
        # SQLAlchemy makes it, with all that it sets up, and leaves it to us.
        made = self._engine.raw_connection()
        connection: Any = made.driver_connection
        made.detach()
        if self._dialect.name == "sqlite":
            connection.execute(f"PRAGMA wal_autocheckpoint={_LONGEST_LOG_PAGES}")
            self._opened = sqlite.identity(str(self._engine.url.database))
        return connection

    def hold_file(self) -> None:
        """Open SQLite's file now, as far as that is possible. Does nothing elsewhere.

        Beside it lie a log and its index, which go with the last who closes it. Whoever is the first to open it makes
        them, for which a full disk has no room, and then could not even read.
        """
        if self._dialect.name == "sqlite":
            with suppress(DatabaseUnavailable):
                self.one(_ANYTHING, {})

    def why_no_writes(self) -> str | None:
        """Return why nothing can be written, in public words that follow its name; None when it can be.

        Changes nothing, and does not call a database busy that only has much to do. Raises DatabaseUnavailable.
        """
        if self._dialect.name != "sqlite":
            # After a failover it is so as well, in a server that follows another.
            return _TAKES_NONE if self.one(_READ_ONLY, {}) == ["on"] else None
        file = str(self._engine.url.database)
        if self._opened is not None and sqlite.identity(file) != self._opened:
            return "is not the file that was opened"
        return None if sqlite.takes_writes(file) else _TAKES_NONE

    def log_bytes(self) -> int:
        """Return how long SQLite's log is; 0 where there is none."""
        if self._dialect.name != "sqlite" or not self._engine.url.database:
            return 0
        try:
            return os.stat(self._engine.url.database + "-wal").st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def aside(self) -> Iterator[Any]:
        """Give a cursor of a connection of its own, for what takes long. Raises the driver's errors."""
        made = self._engine.raw_connection()
        try:
            yield made.cursor()
        finally:
            made.close()

    @contextmanager
    def act(self) -> Iterator[Act]:
        """Give statements that are committed together when the block ends, or not at all when it raises.

        On SQLite no other act runs meanwhile; on PostgreSQL the act says what it has to have for itself. Raises
        DatabaseUnavailable.
        """
        connection, cursor = self._execute("BEGIN IMMEDIATE" if self._dialect.name == "sqlite" else "BEGIN", ())
        done = False
        try:
            yield Act(cursor, self._dialect)
            cursor.execute("COMMIT")
            done = True
        except self._operational_errors as error:
            raise DatabaseUnavailable from error
        finally:
            if done or self._undone(cursor):
                self._kept.give_back(connection)
            else:
                # Whoever had it next would work inside this transaction.
                self._kept.drop(connection)

    def _undone(self, cursor: Any) -> bool:
        try:
            cursor.execute("ROLLBACK")
        except self._operational_errors:
            return False
        return True

    def begin_anew(self) -> None:
        """Forget the connections of the parent in a forked process."""
        self._kept.begin_anew()

    @property
    def broken_reference(self) -> type[Exception]:
        """What a statement raises for a row that names another which is gone."""
        return self._integrity_error


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

_ANYTHING = Prepared(select(func.count()).select_from(table("sqlite_master")))
_READ_ONLY = Prepared(select(func.current_setting("transaction_read_only")))
_TAKES_NONE = "takes no writes"

_alive: WeakSet[Quick] = WeakSet()
# Kept, so that the end of a forked process's copy does not end the parent's connection.
_inherited: list[Any] = []


def _forget_inherited_connections() -> None:
    for quick in _alive:
        quick.begin_anew()


# A connection must not be shared with the parent of a forked worker.
os.register_at_fork(after_in_child=_forget_inherited_connections)
