"""What a command says of a database that is not as it should be: one sentence, no SQL, and nobody's password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.neighbours.portal import Portal
from tests.neighbours.postgres import Postgres
from tests.neighbours.processes import ReservedPort
from tests.portal.calls import PASSWORD
from tests.portal.database import run

COMMANDS = {
    "workspace list": ["workspace", "list"],
    "user create": ["user", "create", "alice@northwind.example"],
    "backup": ["backup", "portal.backup"],
    "db upgrade": ["db", "upgrade"],
    "db current": ["db", "current"],
    "serve": ["serve"],
}

UNUSABLE = "The database (ARKA_DATABASE_URL) cannot be used: "


@pytest.fixture
def port() -> Iterator[int]:
    reserved = ReservedPort()
    yield reserved.number
    reserved.release()


def sentence_of(portal: Portal, *arguments: str) -> str:
    """What a command that fails tells, which is one sentence."""
    result = portal.command(*arguments, input=PASSWORD + "\n")
    told = result.stdout + result.stderr
    assert result.returncode == 1, told
    for unwanted in ("Traceback", "SELECT", 'TRUNCATE TABLE "', "[SQL", "LINE 1", "hush"):
        assert unwanted not in told
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, told
    assert result.stderr.endswith(errors[0] + "\n"), told
    return errors[0].removeprefix("Error: ")


@pytest.mark.embedded
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_file_that_is_no_database_is_said_in_words(tmp_path: Path, port: int, arguments: list[str]) -> None:
    file = tmp_path / "portal.db"
    file.write_bytes(b"no database " * 1000)
    portal = Portal({"ARKA_DATABASE_URL": f"sqlite:///{file}"}, tmp_path, port)
    assert sentence_of(portal, *arguments) == UNUSABLE + "file is not a database."


@pytest.mark.embedded
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_folder_that_is_missing_is_said_in_words(tmp_path: Path, port: int, arguments: list[str]) -> None:
    portal = Portal({"ARKA_DATABASE_URL": f"sqlite:///{tmp_path / 'none' / 'portal.db'}"}, tmp_path, port)
    assert "ARKA_DATABASE_URL" in sentence_of(portal, *arguments)


@pytest.mark.embedded
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_server_that_is_away_is_said_in_words(tmp_path: Path, port: int, arguments: list[str]) -> None:
    portal = Portal({"ARKA_DATABASE_URL": f"postgresql://portal:hush-hush@127.0.0.1:{port}/portal"}, tmp_path, port)
    told = sentence_of(portal, *arguments)
    assert told.startswith(UNUSABLE)
    assert told.endswith("Connection refused.")


@pytest.mark.embedded
def test_a_password_that_the_address_does_not_hold_as_it_should_is_not_told(tmp_path: Path, port: int) -> None:
    """What stands before its second sign is taken for the name of a machine."""
    portal = Portal({"ARKA_DATABASE_URL": "postgresql://portal:word@hush-hush@127.0.0.1/portal"}, tmp_path, port)
    told = sentence_of(portal, "workspace", "list")
    assert "ARKA_DATABASE_URL" in told
    assert "hush" not in told


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_database_that_is_not_there_is_not_one_without_tables(
    postgres_url: str, tmp_path: Path, port: int, arguments: list[str]
) -> None:
    portal = Portal({"ARKA_DATABASE_URL": postgres_url + "_none"}, tmp_path, port)
    told = sentence_of(portal, *arguments)
    assert told.startswith(UNUSABLE)
    assert told.endswith('_none" does not exist.')


@pytest.fixture
def in_ascii(postgres: Postgres) -> Iterator[str]:
    """The address of a database as an installation without a locale makes it."""
    name = postgres.create_database_in("SQL_ASCII")
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_database_that_cannot_hold_every_text_is_said_in_words(
    in_ascii: str, tmp_path: Path, port: int, arguments: list[str]
) -> None:
    portal = Portal({"ARKA_DATABASE_URL": in_ascii}, tmp_path, port)
    told = sentence_of(portal, *arguments)
    assert told == UNUSABLE + "its encoding is SQL_ASCII, make it anew with ENCODING 'UTF8'."


@pytest.fixture
def settings(storage: dict[str, str]) -> dict[str, str]:
    return storage


@pytest.fixture
def portal(settings: dict[str, str], tmp_path: Path, port: int) -> Iterator[Portal]:
    """One that does not run, with all its tables."""
    portal = Portal(settings, tmp_path, port)
    assert portal.command("db", "upgrade").returncode == 0
    yield portal
    portal.drop()


def test_a_table_that_is_missing_is_said_in_words(portal: Portal) -> None:
    run(portal, "DROP TABLE membership")
    run(portal, "DROP TABLE setup_link")
    told = sentence_of(portal, "user", "create", "alice@northwind.example")
    assert told == "The database does not have all the portal's tables. Run `flask --app app db upgrade` first."


def test_something_else_that_is_missing_is_no_missing_table(portal: Portal) -> None:
    run(portal, "ALTER TABLE workspace RENAME COLUMN slug TO snail")
    told = sentence_of(portal, "workspace", "list")
    assert told.startswith(UNUSABLE)
    assert "workspace.slug" in told


@pytest.mark.parametrize("arguments", [["db", "upgrade"], ["db", "downgrade"]], ids=" ".join)
def test_tables_of_a_newer_version_are_left_as_they_are(portal: Portal, arguments: list[str]) -> None:
    run(portal, "UPDATE alembic_version SET version_num = '9999'")
    told = sentence_of(portal, *arguments)
    assert told == "A newer version of the portal has changed the database (it is at 9999): install that one."
    assert run(portal, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_server_that_takes_no_writes_is_said_in_words(postgres_url: str, tmp_path: Path, port: int) -> None:
    """As one is after a failover, and whoever is still sent to it."""
    portal = Portal({"ARKA_DATABASE_URL": postgres_url}, tmp_path, port)
    assert portal.command("db", "upgrade").returncode == 0
    assert portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n").returncode == 0
    file = tmp_path / "portal.backup"
    assert portal.command("backup", str(file)).returncode == 0
    name = make_url(postgres_url).database
    run(portal, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    for arguments in (["restore", str(file), "--yes"], ["user", "create", "bob@northwind.example"]):
        told = sentence_of(portal, *arguments)
        assert told.startswith(UNUSABLE + "cannot execute ")
        assert told.endswith(" in a read-only transaction.")
