"""What happens beside a restore while it is under way: no room any more, and nodes that start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, Table, create_engine, insert, select, text
from sqlalchemy.exc import OperationalError

from extensions import db
from models import MailMessage, ServerProcess, User
from models.base import new_id, now, transaction
from services import backup, rows, schema, sealed_columns, server_processes
from services.backup import RestoreRefused
from services.sealed_columns import SealedColumn, SealedRow
from tests.people import Person, make_person


@pytest.fixture
def file(app: Flask, alice: Person, tmp_path: Path) -> Path:
    """A backup of more than an empty database has room for."""
    with transaction() as session:
        session.add(
            MailMessage(
                id=new_id("mail"),
                recipient="x@y.example",
                subject="Hello",
                text="x" * 200_000,
                html="",
                created_at=now(),
                attempts=1,
                next_attempt_at=now(),
                sent_at=now(),
            )
        )
    path = tmp_path / "portal.backup"
    backup.make(path)
    return path


def fill_up(connection: Connection) -> None:
    """Leave the scratch database no more room than it takes by now."""
    connection.execute(text("PRAGMA max_page_count = 1"))


def restored_without_room(file: Path) -> str:
    make_person("late@northwind.example")
    with pytest.raises(RestoreRefused) as caught:
        backup.restore(file, replace=True)
    assert db.session.query(User).count() == 2
    return caught.value.message


NO_ROOM = "The backup cannot be unpacked in the instance folder: database or disk is full. Nothing was changed."


def test_a_backup_that_there_is_no_room_for_is_not_blamed(
    app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rows.write

    def write_in_narrow_room(connection: Connection, table: Table, some: Iterable[list[Any]]) -> int:
        fill_up(connection)
        return write(connection, table, some)

    monkeypatch.setattr(rows, "write", write_in_narrow_room)
    assert restored_without_room(file) == NO_ROOM
    assert list(Path(app.instance_path).glob("restore-*")) == []


def test_nor_is_one_that_there_is_no_room_to_upgrade(app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = schema.upgrade

    def upgrade_in_narrow_room(connection: Connection, revision: str = "head") -> None:
        upgrade(connection, revision)
        if revision == "head":
            fill_up(connection)
            connection.execute(text("CREATE TABLE one_more (name TEXT)"))

    monkeypatch.setattr(schema, "upgrade", upgrade_in_narrow_room)
    assert restored_without_room(file) == NO_ROOM


def say_it_lives(connection: Connection) -> None:
    at = now()
    connection.execute(
        insert(ServerProcess).values(
            id=new_id("proc"), node="far", started_at=at, alive_until=at + timedelta(seconds=15)
        )
    )


def test_a_node_that_starts_while_the_backup_is_unpacked_is_noticed(
    app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = make_person("late@northwind.example")
    look = sealed_columns.unreadable

    def look_while_a_node_starts(scratch: Connection) -> Iterator[tuple[SealedColumn, SealedRow]]:
        with db.engine.begin() as connection:
            say_it_lives(connection)
        return look(scratch)

    monkeypatch.setattr(sealed_columns, "unreadable", look_while_a_node_starts)
    with pytest.raises(RestoreRefused, match=r"A portal is serving on far\. Stop it first"):
        backup.restore(file, replace=True)
    assert late.workspace.slug == "late"
    assert db.session.scalars(select(ServerProcess.node)).all() == ["far"]


def test_a_node_that_starts_after_that_waits_for_the_end_of_the_restore(
    app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its sign of life would come between the look for one and the emptying of the tables."""
    is_alive = server_processes.is_alive
    waited = []

    def is_alive_while_a_node_starts(at: Any) -> Any:
        waited.append(has_to_wait(app))
        return is_alive(at)

    monkeypatch.setattr(server_processes, "is_alive", is_alive_while_a_node_starts)
    backup.restore(file, replace=True)
    # At the first look everything is as ever.
    assert waited == [False, True]


def has_to_wait(app: Flask) -> bool:
    """Tell whether a process cannot say that it lives. What it says is taken back."""
    engine = create_engine(app.config["SQLALCHEMY_DATABASE_URI"])
    short = "PRAGMA busy_timeout = 0" if engine.dialect.name == "sqlite" else "SET lock_timeout = '100ms'"
    try:
        with engine.connect() as connection:
            connection.execute(text(short))
            say_it_lives(connection)
            connection.rollback()
        return False
    except OperationalError:
        return True
    finally:
        engine.dispose()
