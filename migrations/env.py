"""How Alembic runs for the portal: each upgrade as one transaction, on the app's own engine or a given connection."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from flask import current_app
from sqlalchemy import Connection, text

from extensions import db
from models.base import UTCDateTime, Words

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
    """Upgrade. Of several that begin at once one does it, and the others then find it done.

    On SQLite the transaction takes the write lock at its beginning; PostgreSQL needs a lock of our own.
    """
    if not connection.in_transaction():
        connection.begin()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=True,
        # We have begun one, so an upgrade that fails leaves nothing half done on SQLite either.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


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
            # It goes back to the pool, and whoever has it next relies on them.
            connection.rollback()
            if connection.dialect.name == "sqlite":
                connection.connection.execute("PRAGMA foreign_keys=ON")


given = context.config.attributes.get("connection")
if given is None:
    run_on_own_engine()
else:
    # Whoever gives a connection commits, too.
    run(given)
