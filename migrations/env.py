"""How Alembic runs for the portal: on the app's own engine, each upgrade as one transaction."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from flask import current_app
from sqlalchemy import Connection

from extensions import db
from models.base import UTCDateTime, Words


def render_item(kind: str, item: Any, _autogen_context: AutogenContext) -> str | Literal[False]:
    """Write a migration with the plain column types: it must not change when a class of ours does."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Words):
        return "sa.Text()"
    return False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=True,
        # Ours begins by itself, so an upgrade that fails leaves nothing half done on SQLite either.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


with current_app.app_context(), db.engine.connect() as connection:
    # SQLite checks foreign keys while a table is being rebuilt, unless told not to before the transaction.
    if connection.dialect.name == "sqlite":
        connection.connection.execute("PRAGMA foreign_keys=OFF")
    connection = connection.execution_options(begin_immediate=True)
    run(connection)
    connection.commit()
