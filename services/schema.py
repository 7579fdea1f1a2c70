"""The schema by its revisions: what a database has, what it may be brought to, which tables a revision makes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from flask import current_app
from sqlalchemy import Connection, MetaData, create_engine

VERSION_TABLE = "alembic_version"


def head() -> str:
    """Return the revision that this code works with."""
    return (Path(current_app.extensions["migrate"].directory) / "head").read_text().strip()


def is_known(revision: str) -> bool:
    """Tell whether there is a way from this revision to ours. A newer version's has none."""
    try:
        return _scripts().get_revision(revision) is not None
    except CommandError:
        return False


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database, None when it has no tables yet."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring a database to a revision, within the connection's transaction."""
    settings = _settings()
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)


# Several steps of one restore ask again. Nobody changes the answer.
@cache
def tables_at(revision: str) -> MetaData:
    """Return the tables of a revision as its migrations make them on SQLite, without Alembic's own."""
    engine = create_engine("sqlite://")
    tables = MetaData()
    try:
        with engine.connect() as connection:
            upgrade(connection, revision)
            tables.reflect(connection)
    finally:
        engine.dispose()
    tables.remove(tables.tables[VERSION_TABLE])
    return tables


def _settings() -> Config:
    settings: Config = current_app.extensions["migrate"].migrate.get_config()
    return settings


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_settings())
