"""Background work: done by every process or by one at a time, and whatever happens to one, the rest goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import create_engine, delete, select, text

from app import create_app
from config import load
from extensions import db
from models import IdempotencyRecord, Job, LoginSession
from models.base import delete_some, new_id, now, transaction
from services import background, idempotency, leases, sessions
from services.background import Background, Task
from services.secret import Secret
from services.tasks import TASKS
from tests.neighbours.processes import wait_until
from tests.people import PASSWORD, Person, enter
from tests.services.test_database import in_threads

KEY = "arka_sk_" + "x" * 32


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(background, "_FIRST_SECONDS", (0.0, 0.01))
    yield
    leases._held.clear()


@contextmanager
def at_work(app: Flask, *tasks: Task) -> Iterator[Background]:
    running = Background(app, tasks)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def own(name: str, run: Callable[[], bool | None], seconds: float = 0.02) -> Task:
    return Task(name, seconds, run, once_per_fleet=False)


def be(monkeypatch: pytest.MonkeyPatch, process: str) -> None:
    """Go on as another process."""
    monkeypatch.setattr(leases, "own_id", lambda: process)


# ---- leases


def test_of_many_that_ask_at_once_one_gets_the_lease(app: Flask) -> None:
    got: list[bool] = []
    assert in_threads(app, lambda: got.append(leases.take("work", 60))) == []
    assert sorted(got) == [False] * 5 + [True]


def test_work_is_due_again_when_its_seconds_are_over(app: Flask) -> None:
    began = now()
    with time_machine.travel(began, tick=False):
        assert leases.take("work", 600)
        leases.give_back("work", began)
    for seconds, due in ((1, False), (599, False), (601, True)):
        with time_machine.travel(began + timedelta(seconds=seconds), tick=False):
            assert leases.take("work", 600) is due


def test_the_lease_of_a_dead_process_lapses_and_one_that_is_kept_up_does_not(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, "first")
    began = now()
    assert leases.take("work", 1)
    with time_machine.travel(began + timedelta(seconds=25), tick=False):
        leases.keep_up()
    be(monkeypatch, "second")
    with time_machine.travel(began + timedelta(seconds=50), tick=False):
        assert not leases.take("work", 1)
    with time_machine.travel(began + timedelta(seconds=56), tick=False):
        assert leases.take("work", 1)


def test_who_has_lost_its_lease_does_not_end_the_new_holders(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, "first")
    began = now()
    leases.take("work", 1)
    with time_machine.travel(began + timedelta(seconds=31), tick=False):
        be(monkeypatch, "second")
        assert leases.take("work", 1)
        be(monkeypatch, "first")
        leases.keep_up()
        leases.give_back("work", began)
        be(monkeypatch, "third")
        assert not leases.take("work", 1)
    assert db.session.scalar(select(Job.holder)) == "second"


def test_a_clock_that_was_set_back_stops_no_work_for_longer_than_a_minute(app: Flask) -> None:
    with time_machine.travel(now() + timedelta(days=1), tick=False):
        leases.take("held", 600)
        leases.take("done", 600)
        leases.give_back("done", now())
    assert leases.take("held", 600)
    assert leases.take("done", 600)


def test_to_look_whether_work_is_due_waits_for_no_writer(app: Flask) -> None:
    leases.take("work", 600)
    leases.give_back("work", now())
    writer = create_engine(db.engine.url).connect().execution_options(begin_immediate=True)
    with writer, writer.begin():
        writer.execute(text("DELETE FROM mail_message"))
        began = time.monotonic()
        assert not leases.take("work", 600)
        leases.keep_up()
        assert not delete_some(LoginSession, LoginSession.expires_at < now() - timedelta(days=999))
        assert time.monotonic() - began < 1
    writer.engine.dispose()


# ---- threads


def test_a_task_is_done_again_and_again_as_long_as_there_is_more_at_once(app: Flask) -> None:
    left = list(range(50))

    def run() -> bool:
        left.pop()
        return bool(left)

    with at_work(app, own("work", run, seconds=600)):
        assert wait_until(lambda: not left, 10)
    runs: list[float] = []
    with at_work(app, own("work", lambda: runs.append(time.monotonic()))):
        assert wait_until(lambda: len(runs) > 5, 10)


def test_a_failure_is_logged_without_secrets_and_the_work_goes_on(
    app: Flask, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_LONGEST_RETRY_SECONDS", 0.05)
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError(f"cannot use {KEY}")

    with at_work(app, own("work", run)):
        assert wait_until(lambda: len(runs) > 5, 10)
    written = capfd.readouterr().err
    assert written.count("background task failed") == 2
    assert "ValueError: cannot use [hidden]" in written
    assert KEY not in written


def test_a_task_that_fails_every_time_is_tried_more_and_more_slowly() -> None:
    task = own("work", lambda: None, seconds=2)
    pauses = [background._pause(task, failures) for failures in range(8)]
    assert pauses[0] <= 2.2
    assert pauses[2] >= 8
    assert all(60 <= pause <= 66 for pause in pauses[5:])
    rare = own("work", lambda: None, seconds=3600)
    assert background._pause(rare, 3) >= 3600


def test_each_run_has_a_session_of_its_own_and_gives_it_back(app: Flask, alice: Person) -> None:
    sessions: list[int] = []

    def run() -> None:
        sessions.append(id(db.session()))
        # Left open on purpose.
        db.session.execute(delete(LoginSession))
        if len(sessions) % 2:
            raise RuntimeError

    enter(alice.email, Secret(PASSWORD), address=None, client=None)
    with at_work(app, own("work", run, seconds=0.01)):
        assert wait_until(lambda: len(sessions) >= 2, 10)
    db.session.remove()
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert db.session.query(LoginSession).count() == 1


def test_a_task_that_hangs_holds_up_no_other(app: Flask) -> None:
    go_on, runs = threading.Event(), []
    with at_work(app, own("hangs", lambda: bool(go_on.wait(20))), own("other", lambda: runs.append(1))):
        assert wait_until(lambda: len(runs) > 3, 10)
        go_on.set()


def test_stopping_lets_finish_what_is_at_work_and_begins_nothing_more(app: Flask) -> None:
    begun, finished = threading.Event(), []

    def run() -> bool:
        begun.set()
        time.sleep(0.3)
        finished.append(1)
        return True

    running = Background(app, [own("work", run)])
    running.start()
    assert begun.wait(10)
    running.stop()
    assert finished == [1]
    time.sleep(0.5)
    assert finished == [1]


def test_stopping_does_not_wait_for_ever(app: Flask) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        go_on.wait(20)

    running = Background(app, [own("hangs", run), own("too", run)])
    running.start()
    assert begun.wait(10)
    began = time.monotonic()
    running.stop(patience_seconds=0.2)
    assert time.monotonic() - began < 2
    go_on.set()


def test_the_app_alone_starts_no_thread(environment: dict[str, str]) -> None:
    before = threading.active_count()
    create_app(load(environment))
    assert threading.active_count() == before


# ---- the table


def test_the_tasks_have_names_that_fit_and_differ() -> None:
    names = [task.name for task in TASKS]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= Job.__table__.c.name.type.length  # type: ignore[attr-defined]


def test_every_task_runs_on_an_empty_instance(app: Flask) -> None:
    for task in TASKS:
        assert not task.run()


def test_what_has_ended_is_forgotten_and_nothing_else(app: Flask, alice: Person) -> None:
    for _ in range(3):
        enter(alice.email, Secret(PASSWORD), address=None, client=None)
    with transaction() as session:
        # One is too old, one was not used for too long, one goes on.
        too_old, _unused, goes_on = db.session.scalars(select(LoginSession))
        too_old.remembered = goes_on.remembered = True
        too_old.expires_at = now() + timedelta(days=1)
        for hours in (0, 2):
            session.add(
                IdempotencyRecord(
                    workspace_id=alice.workspace_id,
                    number=new_id("x"),
                    object_id="key_1",
                    created_at=now() + timedelta(hours=hours),
                )
            )
    with time_machine.travel(now() + timedelta(hours=25), tick=False):
        assert sessions.forget_ended() is False
        assert idempotency.forget_old() is False
    assert db.session.query(LoginSession).count() == 1
    assert db.session.query(IdempotencyRecord).count() == 1


def test_much_is_forgotten_in_small_steps(app: Flask, alice: Person) -> None:
    with transaction() as session:
        for number in range(5):
            session.add(
                IdempotencyRecord(
                    workspace_id=alice.workspace_id, number=str(number), object_id="key_1", created_at=now()
                )
            )
    steps = []
    for _ in range(4):
        steps.append(delete_some(IdempotencyRecord, IdempotencyRecord.created_at <= now(), most=2))
        steps.append(db.session.query(IdempotencyRecord).count())
    assert steps == [True, 3, True, 1, False, 0, False, 0]
