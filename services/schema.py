"""The schema by its revisions: what a database has, what it may be brought to, which tables a revision makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flask import current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, MetaData, create_engine, inspect, text

# Alembic and what it brings are a tenth of a worker's memory, and no request needs them: those who migrate load them.
if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from flask_migrate import Migrate

VERSION_TABLE = "alembic_version"


@dataclass
class Migrations:
    """What Flask-Migrate looks for under ``migrate`` in the app's extensions."""

    db: SQLAlchemy
    directory: str

    @cached_property
    def migrate(self) -> Migrate:
        """Flask-Migrate itself."""
        from flask_migrate import Migrate

        return Migrate(db=self.db, directory=self.directory, render_as_batch=True)


def head() -> str:
    """Return the revision that this code works with."""
    return (Path(current_app.extensions["migrate"].directory) / "head").read_text().strip()


def is_known(revision: str) -> bool:
    """Tell whether there is a way from this revision to ours. A newer version's has none."""
    from alembic.util.exc import CommandError

    try:
        return _scripts().get_revision(revision) is not None
    except CommandError:
        return False


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database, None when it has no tables yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - our constant
    return found


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring a database to a revision, within the connection's transaction."""
    from alembic import command

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
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_settings())
