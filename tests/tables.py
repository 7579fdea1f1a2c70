"""The portal's tables, made by the migrations once in each test process and copied for every app under test."""

from __future__ import annotations

import shutil
from pathlib import Path

import flask_migrate
import pytest
from sqlalchemy.engine import make_url

import config
from app import create_app
from extensions import db
from services import schema
from services.parts import parts
from tests.neighbours.postgres import Postgres


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file that holds the tables and nothing else."""
    folder = tmp_path_factory.mktemp("tables")
    file = folder / "tables.db"
    _migrate(f"sqlite:///{file}", folder / "instance")
    assert not file.with_name(file.name + "-wal").exists(), "the file alone is not the whole database"
    return file


@pytest.fixture(scope="session")
def postgres_tables(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a PostgreSQL database that holds the tables and nothing else."""
    postgres.start()
    name = postgres.create_database()
    _migrate(postgres.url_of(name), tmp_path_factory.mktemp("instance"))
    return name


def copy_file(url: str, tables: Path) -> None:
    """Begin the SQLite file of an address as a copy; one that is there stays as it is, and so does PostgreSQL."""
    address = make_url(url)
    if address.get_backend_name() != "sqlite" or not address.database:
        return
    file = Path(address.database)
    if file.parent.is_dir() and not file.exists():
        shutil.copyfile(tables, file)
        file.chmod(0o600)


def make_missing() -> None:
    """Make the tables by the migrations where no copy was laid. Needs an app context."""
    with db.engine.connect() as connection:
        revision = schema.revision_of(connection)
    if revision is None:
        flask_migrate.upgrade()


def _migrate(url: str, instance: Path) -> None:
    app = create_app(config.load({"ARKA_INSTANCE_PATH": str(instance), "ARKA_DATABASE_URL": url}))
    with app.app_context():
        make_missing()
        db.session.remove()
        # A database with open connections cannot be copied.
        db.engine.dispose()
        parts().quick.close()
