"""Transactions that lose no update, on either database."""

from __future__ import annotations

import threading

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models import Workspace
from models.base import transaction
from services import audit
from services.actor import SYSTEM
from services.parts import parts
from tests.people import Person


def in_threads(app: Flask, work: object, count: int = 6) -> list[BaseException]:
    failures: list[BaseException] = []

    def run() -> None:
        with app.app_context():
            try:
                work()  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return failures


def test_reading_and_then_writing_loses_no_update(app: Flask, alice: Person) -> None:
    db.session.execute(text("UPDATE workspace SET requests_per_minute = 0"))
    db.session.commit()

    def add() -> None:
        for _ in range(20):
            with transaction() as session:
                workspace = session.get_one(Workspace, alice.workspace_id, with_for_update=True)
                workspace.requests_per_minute = (workspace.requests_per_minute or 0) + 1

    assert in_threads(app, add) == []
    db.session.expire_all()
    assert alice.workspace.requests_per_minute == 120


def test_entries_written_at_once_still_make_one_chain(app: Flask, alice: Person) -> None:
    def record() -> None:
        for number in range(10):
            audit.record(alice.workspace_id, SYSTEM, "test:act", details={"n": number})

    assert in_threads(app, record) == []
    assert list(audit.first_breaks()) == []


def test_an_act_inside_an_act_is_committed_or_undone_with_it(app: Flask, alice: Person) -> None:
    try:
        with transaction():
            with transaction() as session:
                session.get_one(Workspace, alice.workspace_id).name = "renamed"
            raise RuntimeError
    except RuntimeError:
        pass
    assert alice.workspace.name == "alice"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_each_of_many_connections_keeps_little_of_the_file_and_the_one_of_v1_as_much_as_is_usual(app: Flask) -> None:
    assert db.session.execute(text("PRAGMA cache_size")).scalar_one() == -512
    with parts().quick.aside() as cursor:
        assert cursor.execute("PRAGMA cache_size").fetchone() == (-2000,)
