"""SQLite's log is brought into its file beside the calls, and begins anew however many there are."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest
from flask import Flask
from sqlalchemy import bindparam, update

from models import Workspace
from models.quick import Prepared
from services import checkpoints
from services.parts import parts
from tests.people import Person

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

RENAME = Prepared(update(Workspace).where(Workspace.id == bindparam("of")).values(name=bindparam("name")))


def rename(alice: Person, name: str) -> None:
    tools = parts()
    with tools.turns:
        tools.quick.run(RENAME, {"of": alice.workspace_id, "name": name})


def name_in_the_file(app: Flask, alice: Person) -> str | None:
    """Return what the file says, without the log; None when the workspace is not in it yet."""
    path = app.config["SQLALCHEMY_DATABASE_URI"].removeprefix("sqlite:///")
    connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    try:
        found = connection.execute("SELECT name FROM workspace WHERE id = ?", (alice.workspace_id,)).fetchone()
        return found and found[0]
    finally:
        connection.close()


@on_sqlite
def test_a_long_log_is_brought_into_the_file(app, alice, monkeypatch):
    rename(alice, "In the log")
    assert name_in_the_file(app, alice) != "In the log"
    checkpoints.checkpoint()
    assert name_in_the_file(app, alice) != "In the log", "a short log is not worth the wait for the disk"
    monkeypatch.setattr(checkpoints, "_LONG_BYTES", 1)
    checkpoints.checkpoint()
    assert name_in_the_file(app, alice) == "In the log"


@on_sqlite
def test_no_call_does_it_within_its_own_commit(app, alice):
    # SQLite's own limit is 1,000 pages, and ours for the pages' connections 4,000.
    for number in range(4200):
        rename(alice, f"Name {number}")
    assert parts().quick.log_bytes() > 4200 * 4096
    assert not (name_in_the_file(app, alice) or "").startswith("Name")


@on_sqlite
def test_the_log_begins_anew_while_calls_go_on(app, alice, monkeypatch):
    monkeypatch.setattr(checkpoints, "_LONG_BYTES", 100_000)
    written, over = [0, 0, 0], threading.Event()

    def work(which: int) -> None:
        with app.app_context():
            while not over.is_set():
                rename(alice, f"{which} {written[which]}")
                written[which] += 1

    threads = [threading.Thread(target=work, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    deadline, rounds = time.monotonic() + 60, 0
    # Many rounds, so that one which a busy machine has made long does not hold most of what was written.
    while (sum(written) < 3000 or rounds < 50) and time.monotonic() < deadline:
        time.sleep(0.02)
        checkpoints.checkpoint()
        rounds += 1
    over.set()
    for thread in threads:
        thread.join(10)
    # Each of them is a page in the log at least.
    assert sum(written) >= 3000
    assert parts().quick.log_bytes() < sum(written) * 4096 / 2


@on_sqlite
def test_the_log_does_not_grow_although_another_process_writes_and_pages_read_all_the_time(app, alice, monkeypatch):
    monkeypatch.setattr(checkpoints, "_LONG_BYTES", 100_000)
    monkeypatch.setattr(checkpoints, "_TOO_LONG_BYTES", 1_000_000)
    path = app.config["SQLALCHEMY_DATABASE_URI"].removeprefix("sqlite:///")
    over, written, lengths = threading.Event(), [0], []

    def write() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        while not over.is_set():
            connection.execute("UPDATE workspace SET name = ? WHERE id = ?", (f"{written[0]}", alice.workspace_id))
            written[0] += 1
            time.sleep(0.001)
        connection.close()

    def read() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        while not over.is_set():
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM workspace").fetchall()
            time.sleep(0.01)
            connection.execute("COMMIT")
        connection.close()

    threads = [threading.Thread(target=work) for work in (write, write, read, read, read)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while (written[0] < 3000 or len(lengths) < 50) and time.monotonic() < deadline:
        time.sleep(0.02)
        checkpoints.checkpoint()
        lengths.append(parts().quick.log_bytes())
    over.set()
    for thread in threads:
        thread.join(10)
    assert written[0] >= 3000
    assert max(lengths) < written[0] * 4096 / 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_postgresql_is_left_to_itself(app):
    assert parts().quick.log_bytes() == 0
    checkpoints.checkpoint()
