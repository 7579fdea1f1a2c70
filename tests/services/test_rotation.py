"""Rotation: the same key, a new secret, and never more than two alive."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from extensions import db
from models import ApiKey, ApiKeySecret
from models.base import now
from services import key_history, keys, rotation, workspaces
from services.errors import AlreadyDone, InvalidInput, InvalidRequest, NotFound, PlanRequired
from services.secret import Secret
from tests.people import Person, bearer

Mint = Callable[..., keys.Minted]


def rotate(person: Person, key: ApiKey, overlap: str = "24h", **more: str) -> keys.Minted:
    return rotation.rotate(person.workspace, key.id, actor=person.actor, until=rotation.moment_after(overlap), **more)


def status(client: FlaskClient, secret: Secret) -> int:
    return client.get("/v1/models", headers=bearer(secret)).status_code


def test_the_key_stays_and_both_secrets_work_during_the_overlap(client: FlaskClient, mint: Mint, alice: Person) -> None:
    first = mint()
    before = (first.key.id, first.key.name, first.key.scopes)
    second = rotate(alice, first.key)
    assert (second.key.id, second.key.name, second.key.scopes) == before
    assert second.secret != first.secret
    assert [status(client, secret) for secret in (first.secret, second.secret)] == [200, 200]
    with time_machine.travel(now() + timedelta(hours=24, seconds=1), tick=False):
        assert [status(client, secret) for secret in (first.secret, second.secret)] == [403, 200]


def test_now_ends_the_old_secret_at_once(client: FlaskClient, mint: Mint, alice: Person) -> None:
    first = mint()
    second = rotate(alice, first.key, "now")
    assert [status(client, secret) for secret in (first.secret, second.secret)] == [403, 200]
    assert db.session.query(ApiKeySecret).count() == 1


def test_at_most_two_secrets_are_alive(client: FlaskClient, mint: Mint, alice: Person) -> None:
    minted = [mint()]
    for _ in range(3):
        minted.append(rotate(alice, minted[0].key))
    assert [status(client, each.secret) for each in minted] == [403, 403, 200, 200]
    assert db.session.query(ApiKeySecret).count() == 2


def at_once(app: Flask, acts: list[Callable[[], object]]) -> None:
    """Carry the acts out in threads, each with a session of its own.

    Rows of this thread's session must not be read in there.
    """

    def run(act: Callable[[], object]) -> None:
        with app.app_context():
            try:
                act()
            except NotFound:
                pass
            finally:
                db.session.remove()

    with ThreadPoolExecutor(len(acts)) as pool:
        list(pool.map(run, acts))
    db.session.rollback()


def loose(key: ApiKey) -> ApiKey:
    """Return the key as it is now, tied to no session."""
    db.session.refresh(key)
    db.session.expunge(key)
    return key


def test_rotations_at_the_same_time_leave_two_secrets(
    app: Flask, client: FlaskClient, mint: Mint, alice: Person
) -> None:
    key, made = loose(mint().key), []
    at_once(app, [lambda: made.append(rotate(alice, key).secret)] * 6)
    assert db.session.query(ApiKeySecret).count() == 2
    assert sorted(status(client, secret) for secret in made) == [200, 200, 403, 403, 403, 403]


def test_no_rotation_outlives_a_deletion_at_the_same_time(app: Flask, mint: Mint, alice: Person) -> None:
    for _ in range(3):
        key = loose(mint().key)
        turn = functools.partial(rotate, alice, key, "now")

        def end(key_id: str = key.id) -> None:
            keys.delete(alice.workspace, key_id, actor=alice.actor)

        at_once(app, [turn, end, turn, turn])
        assert db.session.query(ApiKeySecret).count() == 0


def test_a_clock_that_is_put_back_confuses_no_two_secrets(client: FlaskClient, mint: Mint, alice: Person) -> None:
    first = mint()
    with time_machine.travel(now() - timedelta(hours=1), tick=False):
        second = rotate(alice, first.key, "24h")
        db.session.expire_all()
        key = keys.get(alice.workspace, first.key.id)
        assert key.mask is not None
        assert key.mask.endswith(second.secret.reveal()[-5:])
        previous = rotation.previous_secret(key)
        assert previous is not None
        assert previous.mask.endswith(first.secret.reveal()[-5:])
        third = rotate(alice, first.key, "24h")
        assert [status(client, each.secret) for each in (first, second, third)] == [403, 200, 200]


def test_the_overlap_can_be_finished_and_extended(client: FlaskClient, mint: Mint, alice: Person) -> None:
    first = mint()
    rotate(alice, first.key, "1h")
    rotation.extend(alice.workspace, first.key.id, now() + timedelta(days=2), actor=alice.actor)
    with time_machine.travel(now() + timedelta(hours=30), tick=False):
        assert status(client, first.secret) == 200
    rotation.finish(alice.workspace, first.key.id, actor=alice.actor)
    assert status(client, first.secret) == 403
    with pytest.raises(InvalidRequest):
        rotation.finish(alice.workspace, first.key.id, actor=alice.actor)


def test_who_still_uses_the_old_secret_is_told(client: FlaskClient, mint: Mint, alice: Person) -> None:
    first = mint()
    status(client, first.secret)
    second = rotate(alice, first.key)
    for _ in range(3):
        client.get("/v1/models", headers={**bearer(first.secret), "User-Agent": "old program"})
    status(client, second.secret)
    previous = rotation.previous_secret(second.key)
    assert previous is not None
    (use,) = rotation.users_of(second.key, previous)
    assert (use.address, use.client, use.count) == ("127.0.0.1", "old program", 3)


def test_no_secret_outlives_its_key(mint: Mint, alice: Person) -> None:
    minted = mint(expires_at=now() + timedelta(hours=3))
    with pytest.raises(InvalidInput, match="not after the key"):
        rotate(alice, minted.key, "24h")
    rotate(alice, minted.key, "1h")
    keys.change(alice.workspace, minted.key.id, actor=alice.actor, expires_at=now() + timedelta(minutes=5))
    previous = rotation.previous_secret(minted.key)
    assert previous is not None
    assert previous.ends_at is not None
    assert previous.ends_at <= now() + timedelta(minutes=5)


@pytest.mark.parametrize("overlap", ["", "2h", "yesterday", "2020-01-01T00:00:00Z", "2099-01-01T00:00:00"])
def test_an_overlap_that_makes_no_sense_is_named(mint: Mint, alice: Person, overlap: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        rotate(alice, mint().key, overlap)
    assert list(caught.value.fields) == ["overlap"]


def test_without_the_plan_no_new_secret_is_made(mint: Mint, alice: Person) -> None:
    minted = mint()
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    with pytest.raises(PlanRequired):
        rotate(alice, minted.key)


def test_the_same_request_again_rotates_once(mint: Mint, alice: Person) -> None:
    minted = mint()
    rotate(alice, minted.key, one_time_number="n")
    with pytest.raises(AlreadyDone):
        rotate(alice, minted.key, one_time_number="n")
    assert db.session.query(ApiKeySecret).count() == 2


def test_a_key_of_another_workspace_is_not_found(mint: Mint, charlie: Person) -> None:
    key = mint().key
    for act in (
        lambda: rotate(charlie, key),
        lambda: rotation.finish(charlie.workspace, key.id, actor=charlie.actor),
        lambda: rotation.extend(charlie.workspace, key.id, now() + timedelta(hours=1), actor=charlie.actor),
        lambda: keys.disable(charlie.workspace, key.id, actor=charlie.actor),
        lambda: keys.enable(charlie.workspace, key.id, actor=charlie.actor),
        lambda: keys.change(charlie.workspace, key.id, actor=charlie.actor, name="mine"),
    ):
        with pytest.raises(NotFound):
            act()


def test_a_disabled_key_is_refused_until_it_is_enabled(client: FlaskClient, mint: Mint, alice: Person) -> None:
    minted = mint()
    keys.disable(alice.workspace, minted.key.id, actor=alice.actor)
    assert status(client, minted.secret) == 403
    keys.enable(alice.workspace, minted.key.id, actor=alice.actor)
    assert status(client, minted.secret) == 200


def test_an_expiry_may_be_set_anew_after_it_has_passed(client: FlaskClient, mint: Mint, alice: Person) -> None:
    minted = mint(expires_at=now() + timedelta(minutes=1))
    later = now() + timedelta(minutes=2)
    with time_machine.travel(later, tick=False):
        assert status(client, minted.secret) == 403
        keys.change(alice.workspace, minted.key.id, actor=alice.actor, expires_at=None)
        assert status(client, minted.secret) == 200


def test_secrets_are_due_for_rotation_after_90_days(mint: Mint) -> None:
    key = mint().key
    assert not rotation.is_due(key)
    with time_machine.travel(now() + timedelta(days=90, seconds=1), tick=False):
        assert rotation.is_due(key)


def test_attempts_with_an_ended_secret_are_kept_and_told(client: FlaskClient, mint: Mint, alice: Person) -> None:
    minted = mint()
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    response = client.get("/v1/models", headers={**bearer(minted.secret), "User-Agent": "forgotten job"})
    assert response.status_code == 403
    key = keys.get_any(alice.workspace, minted.key.id)
    (attempt,) = key_history.attempts_since_end(key)
    assert (attempt.address, attempt.client) == ("127.0.0.1", "forgotten job")
    assert attempt.request_id == response.headers["X-Request-Id"]
    explanation = key_history.explain(alice.workspace, attempt.request_id)
    assert explanation.failed is not None
    assert explanation.failed.name == "known"
    assert keys.last_uses(alice.workspace) == {}


def test_why_a_call_was_refused_can_be_asked_by_its_workspace_alone(
    client: FlaskClient, mint: Mint, alice: Person, charlie: Person
) -> None:
    secret = mint(scopes=["usage:read"]).secret
    request_id = client.get("/v1/models", headers=bearer(secret)).headers["X-Request-Id"]
    explanation = key_history.explain(alice.workspace, request_id)
    states = {check.name: check.state for check in explanation.checks}
    assert (states["plan"], states["scope"], states["rate"]) == ("passed", "failed", "not reached")
    assert "models:read" in explanation.advice
    for workspace, wanted in ((charlie.workspace, request_id), (alice.workspace, "req_none")):
        with pytest.raises(NotFound):
            key_history.explain(workspace, wanted)
