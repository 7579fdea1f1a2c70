"""What the System page says of the instance."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from extensions import db
from models import Job, Passkey, ServerProcess, TotpSecret, User
from models.base import new_id, now, transaction
from services import instance_state, metrics, outbox, vault_rotation
from services.parts import parts
from services.rate_limits import RateLimits, StoreUnavailable, storage_from_uri
from services.tasks import TASKS
from tests.neighbours.storage import GROWN
from tests.people import Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: plain queries."""
    return one_database_url


def test_a_task_tells_its_last_run_and_how_often_it_failed(app: Flask) -> None:
    at = now()
    before = {state.name: state for state in instance_state.task_states()}
    with transaction() as session:
        session.add(Job(name="forget mail", holder="proc_1", held_until=at + timedelta(seconds=9), last_run_at=at))
    for outcome in ("done", "done", "failed"):
        metrics.TASK_RUNS.add("forget mail", outcome)
    states = {state.name: state for state in instance_state.task_states()}
    assert list(states) == [task.name for task in TASKS]
    told, was = states["forget mail"], before["forget mail"]
    assert (told.done - was.done, told.failed - was.failed) == (2, 1)
    assert (told.last_run_at, told.at_work, told.once_per_fleet) == (at, True, True)
    assert (was.last_run_at, was.at_work) == (None, False)


def test_only_processes_that_say_so_are_alive(app: Flask) -> None:
    with transaction() as session:
        for name, seconds in (("proc_dead", -1), ("proc_alive", 10), ("proc_of_a_later_clock", 600)):
            at = now() + timedelta(seconds=seconds)
            session.add(ServerProcess(id=name, node="node-1", started_at=now(), alive_until=at))
    assert [process.id for process in instance_state.living_processes()] == ["proc_alive"]


def test_where_limits_are_counted_is_said_without_an_address(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert instance_state.limits_storage() == ("Redis" if GROWN else "SQLite")
    assert RateLimits(storage_from_uri("redis://:hunter2@127.0.0.1:1/0")).storage_title == "Redis"
    limits = RateLimits(storage_from_uri("redis://127.0.0.1:1/0"), fallback=True)
    limits.peek("x", 1)
    monkeypatch.setattr("services.instance_state.parts", lambda: type("Parts", (), {"limits": limits}))
    assert instance_state.limits_storage() == "the memory of each process, because Redis does not answer"
    with pytest.raises(StoreUnavailable):
        RateLimits(storage_from_uri("redis://127.0.0.1:1/0")).peek("x", 1)


def test_a_second_factor_counts_once_it_has_been_shown(app: Flask, alice: Person) -> None:
    user = db.session.get_one(User, alice.user_id)
    assert not instance_state.has_second_factor(user)
    with transaction() as session:
        secret = TotpSecret(id=new_id("totp"), user_id=user.id, sealed="x", created_at=now())
        session.add(secret)
    assert not instance_state.has_second_factor(user)
    with transaction():
        secret.confirmed_at = now()
    assert instance_state.has_second_factor(user)
    with transaction() as session:
        session.delete(secret)
        session.add(
            Passkey(
                id=new_id("pk"), user_id=user.id, credential_id=b"x", public_key=b"x", sign_count=0, backed_up=False,
                name="Phone", created_at=now(),
            )
        )  # fmt: skip
    assert instance_state.has_second_factor(user)


def test_a_fresh_instance_has_one_master_key_and_no_mail(app: Flask) -> None:
    (key,) = vault_rotation.standings()
    assert (key.name, key.role, key.rows) == (parts().vault.active_key_id, "seals", 0)
    assert outbox.counts() == {"waiting": 0, "sent": 0, "failed": 0}
