"""How Alembic runs for the portal: each upgrade as one transaction, on the app's own engine or a given connection."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.runtime.migration import MigrationInfo
from alembic.util.exc import CommandError
from flask import current_app
from sqlalchemy import Connection, text

from extensions import db
from models import postgresql
from models.base import UTCDateTime, Words
from services import audit_chain, schema
from services.errors import InvalidRequest

# From here on entries of the audit log are bound by MAC; those that are there were not.
_KEYED_AUDIT_LOG = "0004"
# Any number, as long as nobody else uses it in the portal's database.
_LOCK = 4_127_380_915


def render_item(kind: str, item: Any, _autogen_context: AutogenContext) -> str | Literal[False]:
    """Write a migration with the plain column types: it must not change when a class of ours does."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Words):
        return "sa.Text()"
    return False


def run(connection: Connection) -> None:
    """Upgrade, and do what an upgrade needs the portal's keys for.

    Of several that begin at once one does it, and the others then find it done. On SQLite the transaction takes the
    write lock at its beginning; PostgreSQL needs a lock of our own.
    """
    if not connection.in_transaction():
        connection.begin()
    with postgresql.unbounded(connection):
        _run(connection)


def _run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Another node's upgrade may take long.
        before = connection.scalar(text("SHOW lock_timeout"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        connection.execute(text(f"SET LOCAL lock_timeout = '{before}'"))
    applied: set[str] = set()

    def note(*, step: MigrationInfo, **_: Any) -> None:
        if step.is_upgrade:
            applied.update(step.up_revision_ids)

    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=True,
        # We have begun one, so an upgrade that fails leaves nothing half done on SQLite either.
        transactional_ddl=True,
        on_version_apply=note,  # type: ignore[arg-type]
    )
    with context.begin_transaction():
        try:
            context.run_migrations()
        except CommandError as error:
            _refuse_newer(connection, error)
            raise
        if _KEYED_AUDIT_LOG in applied:
            audit_chain.seal(connection)


def _refuse_newer(connection: Connection, error: CommandError) -> None:
    """Alembic says of the tables of a newer version only that it cannot find a revision."""
    found = schema.revision_of(connection)
    if found is not None and not schema.is_known(found):
        raise InvalidRequest(
            f"A newer version of the portal has changed the database (it is at {found}): install that one."
        ) from error


def run_on_own_engine() -> None:
    with current_app.app_context(), db.engine.connect() as connection:
        # SQLite checks foreign keys while a table is being rebuilt, unless told not to before the transaction.
        if connection.dialect.name == "sqlite":
            connection.connection.execute("PRAGMA foreign_keys=OFF")
        connection = connection.execution_options(begin_immediate=True)
        try:
            run(connection)
            connection.commit()
        finally:
            # Whoever gets this connection next relies on them.
            connection.rollback()
            if connection.dialect.name == "sqlite":
                connection.connection.execute("PRAGMA foreign_keys=ON")


given = context.config.attributes.get("connection")
if given is None:
    run_on_own_engine()
else:
    # Whoever gives a connection commits, too.
    run(given)
