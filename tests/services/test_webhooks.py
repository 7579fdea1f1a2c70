"""Webhooks: an event of each act to each endpoint that wants it, signed, tried for a day, and held up by nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import func, select, update
from standardwebhooks.webhooks import Webhook

from extensions import db
from models import (
    AuditEvent,
    Job,
    MailMessage,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookSecret,
)
from models.base import now, transaction
from services import events, keys, leases, rotation, webhook_deliveries, webhook_sender, webhooks
from services.errors import AlreadyDone, InvalidInput, InvalidRequest, NotFound
from services.parts import parts
from services.vault import CannotDecrypt
from tests.neighbours.processes import wait_until
from tests.neighbours.webhook_receiver import WebhookReceiver
from tests.people import Person
from tests.services.test_database import in_threads

Mint = Callable[..., keys.Minted]
Add = Callable[..., webhooks.Minted]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"ARKA_WEBHOOK_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(autouse=True)
def _no_leases() -> Iterator[None]:
    yield
    leases._held.clear()


@pytest.fixture
def add(alice: Person, receiver: WebhookReceiver) -> Add:
    """Add an endpoint at the receiver: ``add("/path", kinds=["key.created"])``."""

    def add(path: str = "/", *, owner: Person = alice, **more: Any) -> webhooks.Minted:
        return webhooks.create(owner.workspace, actor=owner.actor, url=receiver.url + path, **more)

    return add


def send_all() -> int:
    """Do what the background does until nothing is due; return how often something was."""
    while webhook_deliveries.fan_out():
        pass
    count = 0
    while webhook_deliveries.send_next():
        count += 1
    db.session.rollback()
    return count


def deliveries() -> list[WebhookDelivery]:
    db.session.rollback()
    return list(db.session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.created_at)))


def endpoint_of(minted: webhooks.Minted) -> WebhookEndpoint:
    db.session.rollback()
    return db.session.get_one(WebhookEndpoint, minted.endpoint.id)


def count(model: Any) -> int:
    return db.session.scalar(select(func.count()).select_from(model)) or 0


# ---- Endpoints


def test_a_secret_is_sealed_and_opens_in_its_own_row_only(app: Flask, alice: Person, add: Add) -> None:
    first, second = add(), add("/other")
    rows = {row.endpoint_id: row for row in db.session.scalars(select(WebhookSecret))}
    row, other = rows[first.endpoint.id], rows[second.endpoint.id]
    value = first.secret.reveal()
    assert value.startswith("whsec_")
    assert len(value) == len("whsec_") + 44
    assert value[6:] not in row.sealed
    assert parts().vault.open(row.sealed, webhooks.place_of(row.id, row.endpoint_id)) == first.secret
    with pytest.raises(CannotDecrypt):
        parts().vault.open(row.sealed, webhooks.place_of(other.id, other.endpoint_id))
    assert first.secret != second.secret


def test_what_cannot_be_an_endpoint_is_refused_with_a_sentence_at_its_field(alice: Person, add: Add) -> None:
    for values, field in [
        ({"url": "http://8.8.8.8/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"description": "x" * 101}, "description"),
        ({"description": "two\nlines"}, "description"),
        ({"kinds": ["key.created", "no.such"]}, "events"),
        ({"kinds": [events.TEST]}, "events"),
    ]:
        with pytest.raises(InvalidInput) as refused:
            webhooks.create(alice.workspace, actor=alice.actor, **{"url": "https://hooks.example/", **values})
        assert list(refused.value.fields) == [field]
    assert count(WebhookEndpoint) == 0
    for number in range(webhooks.MOST_ENDPOINTS):
        add(f"/{number}")
    with pytest.raises(InvalidInput, match="at most 20"):
        add("/more")


def test_the_same_request_adds_one_endpoint(alice: Person, add: Add) -> None:
    made = add(one_time_number="n1")
    with pytest.raises(AlreadyDone) as done:
        add(one_time_number="n1")
    assert done.value.object_id == made.endpoint.id
    assert count(WebhookEndpoint) == 1


def test_every_act_on_an_endpoint_is_in_the_audit_log_without_its_address(alice: Person, add: Add) -> None:
    made = add("/path?token=hidden")
    workspace, actor, endpoint_id = alice.workspace, alice.actor, made.endpoint.id
    webhooks.change(workspace, endpoint_id, actor=actor, description="Billing")
    webhooks.rotate_secret(workspace, endpoint_id, actor=actor, overlap="24h")
    webhooks.disable(workspace, endpoint_id, actor=actor)
    webhooks.enable(workspace, endpoint_id, actor=actor)
    webhooks.delete(workspace, endpoint_id, actor=actor)
    entries = db.session.scalars(
        select(AuditEvent).where(AuditEvent.object_id == endpoint_id).order_by(AuditEvent.number)
    ).all()
    acts = ["create", "change", "rotate_secret", "disable", "enable", "delete"]
    assert [entry.action for entry in entries] == [f"webhook:{act}" for act in acts]
    told = " ".join(f"{entry.object_name} {entry.details}" for entry in entries)
    assert "hidden" not in told
    assert made.secret.reveal() not in told
    assert count(WebhookSecret) == 0


def test_an_endpoint_of_another_workspace_is_not_found(alice: Person, charlie: Person, add: Add) -> None:
    made = add()
    for act in (
        lambda: webhooks.get(charlie.workspace, made.endpoint.id),
        lambda: webhooks.delete(charlie.workspace, made.endpoint.id, actor=charlie.actor),
        lambda: webhooks.rotate_secret(charlie.workspace, made.endpoint.id, actor=charlie.actor, overlap="now"),
        lambda: webhook_deliveries.send_test(charlie.workspace, made.endpoint.id),
        lambda: webhooks.page(charlie.workspace, limit=1, after=made.endpoint.id),
    ):
        with pytest.raises(NotFound):
            act()
    assert webhooks.of_workspace(charlie.workspace) == []


# ---- Events


def test_nothing_is_written_where_no_endpoint_wants_it(alice: Person, charlie: Person, mint: Mint, add: Add) -> None:
    mint()
    assert count(WebhookEvent) == 0
    wanting = add(kinds=["key.deleted"])
    add(owner=charlie)
    key = mint().key
    assert count(WebhookEvent) == 0
    webhooks.disable(alice.workspace, wanting.endpoint.id, actor=alice.actor)
    keys.delete(alice.workspace, key.id, actor=alice.actor)
    assert count(WebhookEvent) == 0
    webhooks.enable(alice.workspace, wanting.endpoint.id, actor=alice.actor)
    keys.delete(alice.workspace, mint().key.id, actor=alice.actor)
    assert [event.kind for event in db.session.scalars(select(WebhookEvent))] == ["key.deleted"]


def test_an_act_that_fails_has_no_event(alice: Person, mint: Mint, add: Add) -> None:
    add()
    key = mint().key
    before = count(WebhookEvent)

    def fail() -> None:
        with transaction():
            keys.delete(alice.workspace, key.id, actor=alice.actor)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert count(WebhookEvent) == before


def test_no_event_holds_a_secret(alice: Person, mint: Mint, add: Add) -> None:
    endpoint = add()
    minted = mint("Server", environment="live")
    rotated = rotation.rotate(alice.workspace, minted.key.id, actor=alice.actor, until=now() + timedelta(hours=1))
    told = json.dumps([event.data for event in db.session.scalars(select(WebhookEvent))])
    assert minted.key.name in told
    for secret in (minted.secret, rotated.secret, endpoint.secret):
        assert secret.reveal() not in told


def test_each_event_goes_once_to_each_endpoint_that_wants_it(app: Flask, mint: Mint, add: Add) -> None:
    every, some, other = add("/all"), add("/some", kinds=["key.created"]), add("/other", kinds=["key.deleted"])
    for _ in range(3):
        mint()
    assert in_threads(app, webhook_deliveries.fan_out) == []
    found = [delivery.endpoint_id for delivery in deliveries()]
    assert (found.count(every.endpoint.id), found.count(some.endpoint.id), found.count(other.endpoint.id)) == (3, 3, 0)
    assert not webhook_deliveries.fan_out()
    assert len(deliveries()) == 6
    add("/late")
    send_all()
    assert len(deliveries()) == 6


# ---- Deliveries


def test_a_delivery_is_signed_as_standard_webhooks_says(
    alice: Person, mint: Mint, add: Add, receiver: WebhookReceiver
) -> None:
    made, other = add("/arka?a=1"), add("/other", kinds=["key.deleted"])
    key = mint("Production Server", environment="live").key
    send_all()
    (taken,) = receiver.taken
    event = Webhook(made.secret.reveal()).verify(taken.body, taken.headers)
    assert (event["type"], taken.path) == ("key.created", "/arka?a=1")
    assert taken.headers["content-type"] == "application/json"
    assert event["data"]["workspace_id"] == alice.workspace_id
    assert event["data"]["key"] == {"id": key.id, "name": "Production Server", "masked": key.mask}
    assert event["data"]["actor"] == {"kind": "user", "id": alice.user_id, "name": alice.email}
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(other.secret.reveal()).verify(taken.body, taken.headers)
    (delivery,) = deliveries()
    assert taken.headers["webhook-id"] == delivery.event_id
    assert webhook_deliveries.state_of(delivery) == "delivered"
    assert send_all() == 0
    assert endpoint_of(made).last_answer == "204"


def test_during_a_rotation_both_secrets_sign_and_then_one(alice: Person, add: Add, receiver: WebhookReceiver) -> None:
    first = add()
    endpoint_id = first.endpoint.id

    def fitting(*minted: webhooks.Minted) -> list[bool]:
        webhook_deliveries.send_test(alice.workspace, endpoint_id)
        send_all()
        taken = receiver.taken[-1]
        return [_fits(one, taken.body, taken.headers) for one in minted]

    second = webhooks.rotate_secret(alice.workspace, endpoint_id, actor=alice.actor, overlap="24h")
    assert fitting(first, second) == [True, True]
    with time_machine.travel(now() + timedelta(hours=25), tick=True):
        assert fitting(first, second) == [False, True]
    third = webhooks.rotate_secret(alice.workspace, endpoint_id, actor=alice.actor, overlap="24h")
    assert fitting(first, second, third) == [False, True, True]
    fourth = webhooks.rotate_secret(alice.workspace, endpoint_id, actor=alice.actor, overlap="now")
    assert fitting(second, third, fourth) == [False, False, True]
    assert count(WebhookSecret) == 1


def _fits(minted: webhooks.Minted, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(minted.secret.reveal()).verify(body, headers)
    except Exception:
        return False
    return True


def test_a_failed_delivery_is_tried_for_a_day_under_the_same_id_and_then_given_up(
    alice: Person, add: Add, receiver: WebhookReceiver
) -> None:
    made = add()
    receiver.statuses = [500] * 100
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    began = now()
    at, waited = began, timedelta()
    for pause in (*webhook_deliveries.PAUSES, None):
        with time_machine.travel(at, tick=False):
            assert send_all() == 1
            assert send_all() == 0
            (delivery,) = deliveries()
            if pause is None:
                break
            assert delivery.next_attempt_at - now() == pause
        at, waited = at + pause + timedelta(seconds=1), waited + pause
    assert timedelta(hours=24) < waited < timedelta(hours=30)
    assert webhook_deliveries.state_of(deliveries()[0]) == "failed"
    assert len(receiver.taken) == len(webhook_deliveries.PAUSES) + 1
    assert len(set(receiver.ids())) == 1
    assert len({taken.headers["webhook-timestamp"] for taken in receiver.taken}) == len(receiver.taken)
    with time_machine.travel(at + timedelta(days=1), tick=False):
        assert send_all() == 0
    endpoint = endpoint_of(made)
    assert (endpoint.failures, endpoint.last_answer, endpoint.disabled_at) == (1, "500", None)
    assert endpoint.failing_since is not None
    assert abs(endpoint.failing_since - began) < timedelta(seconds=1)


def test_failures_are_counted_by_delivery_and_forgotten_with_the_first_success(
    alice: Person, add: Add, receiver: WebhookReceiver
) -> None:
    made = add()
    receiver.statuses = [500, 502, 503]
    at = now()
    for failures, answer in ((1, "500"), (2, "502"), (3, "503"), (0, "204")):
        with time_machine.travel(at, tick=False):
            webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
            db.session.execute(update(WebhookDelivery).where(WebhookDelivery.attempts > 0).values(failed_at=now()))
            db.session.commit()
            send_all()
            endpoint = endpoint_of(made)
            assert (endpoint.failures, endpoint.last_answer) == (failures, answer)
        at += timedelta(minutes=2)
    assert endpoint.failing_since is None


def test_the_answer_is_kept_short_printable_and_without_secrets(
    alice: Person, add: Add, receiver: WebhookReceiver, mint: Mint
) -> None:
    made, key = add(kinds=["plan.changed"]), mint()
    secret = made.secret.reveal()
    receiver.statuses = [400]
    receiver.answer = f"no\0 \r\n {secret} {secret[6:]} {key.secret.reveal()} ".encode() + b"\xff" + b"x" * 5000
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    send_all()
    attempt = db.session.scalars(select(WebhookAttempt)).one()
    assert attempt.status == 400
    assert attempt.answer is not None
    assert attempt.answer.startswith("no [hidden] [hidden] [hidden] ")
    assert len(attempt.answer) == 500
    assert attempt.answer.isprintable()


@pytest.mark.parametrize(
    ("path", "error"), [("/redirect", None), ("/hang", "No answer within"), ("nowhere", "The connection was refused.")]
)
def test_no_answer_and_a_redirect_are_failures(
    alice: Person, add: Add, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, path: str, error: str | None
) -> None:
    monkeypatch.setattr(webhook_sender, "SECONDS", 0.5)
    made = add(path) if path.startswith("/") else None
    if made is None:
        made = webhooks.create(alice.workspace, actor=alice.actor, url="http://127.0.0.1:1/")
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    send_all()
    attempt = db.session.scalars(select(WebhookAttempt)).one()
    assert attempt.status == (302 if error is None else None)
    assert (attempt.error or "").startswith(error or "")
    assert webhook_deliveries.state_of(deliveries()[0]) == "waiting"


def test_an_address_that_became_private_is_not_called(
    alice: Person, add: Add, receiver: WebhookReceiver, app: Flask
) -> None:
    made = add()
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    parts().outbound.networks = ()
    send_all()
    assert receiver.taken == []
    assert db.session.scalars(select(WebhookAttempt)).one().error == "The address is not one that is called."


def test_what_a_killed_process_had_claimed_is_sent_when_its_claim_lapses(
    alice: Person, add: Add, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add()
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)

    class Killed(BaseException):
        pass

    def die(_message: object) -> None:
        raise Killed

    monkeypatch.setattr(leases, "own_id", lambda: "killed")
    with monkeypatch.context() as patch:
        patch.setattr(webhook_deliveries.webhook_sender, "send", die)
        patch.setattr(leases, "give_back", lambda *_: None)
        with pytest.raises(Killed):
            webhook_deliveries.send_next()
    leases._held.clear()
    monkeypatch.setattr(leases, "own_id", lambda: "another")
    assert send_all() == 0
    with time_machine.travel(now() + webhook_deliveries.CLAIM + timedelta(seconds=1), tick=True):
        assert send_all() == 1
    assert receiver.ids() == [deliveries()[0].event_id]
    assert deliveries()[0].attempts == 2


def test_an_endpoint_gets_one_at_a_time_and_a_slow_one_holds_up_no_other(
    app: Flask, alice: Person, add: Add, receiver: WebhookReceiver
) -> None:
    slow, quick = add("/slow"), add("/quick")
    for _ in range(4):
        webhook_deliveries.send_test(alice.workspace, slow.endpoint.id)
    for _ in range(4):
        webhook_deliveries.send_test(alice.workspace, quick.endpoint.id)

    def work() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(row.delivered_at is None for row in deliveries()):
            webhook_deliveries.send_next()

    assert in_threads(app, work) == []
    assert receiver.most_at_once == {"/slow": 1, "/quick": 1}
    assert sorted(receiver.ids()) == sorted(delivery.event_id for delivery in deliveries())
    paths = [taken.path for taken in receiver.taken]
    assert paths.index("/quick") < len(paths) - 1 - paths[::-1].index("/slow")


def test_an_endpoint_that_hangs_takes_one_thread_and_then_rests(
    app: Flask, alice: Person, add: Add, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "SECONDS", 1.0)
    hanging, good = add("/hang"), add("/good")
    for _ in range(5):
        webhook_deliveries.send_test(alice.workspace, hanging.endpoint.id)

    def work() -> None:
        with app.app_context():
            webhook_deliveries.send_next()

    stuck = threading.Thread(target=work)
    stuck.start()
    assert receiver.taking.wait(10)
    webhook_deliveries.send_test(alice.workspace, good.endpoint.id)
    assert webhook_deliveries.send_next()
    assert [taken.path for taken in receiver.taken] == ["/hang", "/good"]
    stuck.join()
    # It has failed, so its other deliveries wait although they are due.
    assert not webhook_deliveries.send_next()
    assert receiver.most_at_once["/hang"] == 1
    with time_machine.travel(now() + timedelta(seconds=4), tick=True):
        assert webhook_deliveries.send_next()


def test_an_endpoint_that_nothing_reached_for_days_is_disabled_and_people_are_told(
    alice: Person, bob: Person, add: Add, receiver: WebhookReceiver
) -> None:
    made = add("/path?token=hidden", description="Billing")
    receiver.statuses = [500] * 10
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    send_all()
    with time_machine.travel(now() + webhook_deliveries.PATIENCE - timedelta(hours=1), tick=True):
        send_all()
        assert endpoint_of(made).disabled_at is None
        webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    with time_machine.travel(now() + webhook_deliveries.PATIENCE + timedelta(minutes=1), tick=True):
        send_all()
    endpoint = endpoint_of(made)
    assert endpoint.disabled_at is not None
    assert endpoint.disabled_why == "nothing arrived for 5 days"
    assert {webhook_deliveries.state_of(delivery) for delivery in deliveries()} == {"failed"}
    entry = db.session.scalars(select(AuditEvent).where(AuditEvent.action == "webhook:disable")).one()
    assert (entry.actor_kind, entry.object_name) == ("system", "Billing")
    message = db.session.scalars(select(MailMessage)).one()
    assert message.recipient == alice.email
    assert f"/webhooks/{made.endpoint.id}" in message.text
    assert "hidden" not in message.text + message.html
    tried = len(receiver.taken)
    with time_machine.travel(now() + timedelta(days=6), tick=True):
        send_all()
    assert len(receiver.taken) == tried


def test_gone_means_gone(alice: Person, add: Add, receiver: WebhookReceiver) -> None:
    made = add()
    receiver.statuses = [410]
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    send_all()
    assert endpoint_of(made).disabled_why == "it answered 410 Gone"
    with pytest.raises(InvalidRequest) as refused:
        webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    assert refused.value.code == "webhook_disabled"


def test_a_delivery_is_sent_again_on_request_under_its_own_id(
    alice: Person, add: Add, receiver: WebhookReceiver
) -> None:
    made = add()
    receiver.statuses = [500]
    delivery = webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    again = {"actor": alice.actor, "one_time_number": "n1"}
    with pytest.raises(InvalidRequest) as refused:
        webhook_deliveries.redeliver(alice.workspace, made.endpoint.id, delivery.id, actor=alice.actor)
    assert refused.value.code == "delivery_in_progress"
    send_all()
    webhooks.disable(alice.workspace, made.endpoint.id, actor=alice.actor)
    assert webhook_deliveries.state_of(deliveries()[0]) == "failed"
    webhooks.enable(alice.workspace, made.endpoint.id, actor=alice.actor)
    webhook_deliveries.redeliver(alice.workspace, made.endpoint.id, delivery.id, **again)
    with time_machine.travel(now() + timedelta(seconds=5), tick=True):
        send_all()
        assert webhook_deliveries.state_of(deliveries()[0]) == "delivered"
        with pytest.raises(AlreadyDone):
            webhook_deliveries.redeliver(alice.workspace, made.endpoint.id, delivery.id, **again)
        webhook_deliveries.redeliver(alice.workspace, made.endpoint.id, delivery.id, actor=alice.actor)
        send_all()
    assert len(receiver.taken) == 3
    assert len(set(receiver.ids())) == 1
    assert len(webhook_deliveries.attempts_of(deliveries())[delivery.id]) == 3


def test_an_endpoint_that_is_deleted_while_it_is_called_leaves_nothing(
    app: Flask, alice: Person, add: Add, receiver: WebhookReceiver
) -> None:
    made = add("/hang")
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    failed: list[BaseException] = []

    def work() -> None:
        with app.app_context():
            try:
                webhook_deliveries.send_next()
            except BaseException as error:
                failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert wait_until(lambda: bool(receiver.taken), 10)
    webhooks.delete(alice.workspace, made.endpoint.id, actor=alice.actor)
    receiver.go_on.set()
    thread.join()
    assert failed == []
    assert (count(WebhookDelivery), count(WebhookAttempt), count(WebhookSecret)) == (0, 0, 0)
    webhook_deliveries.forget_leases()
    assert db.session.scalars(select(Job.name).where(Job.name.like("webhook/%"))).all() == []


def test_a_secret_that_does_not_open_is_told_and_sends_nothing(
    alice: Person, add: Add, receiver: WebhookReceiver
) -> None:
    made, other = add(), add("/other")
    sealed = {row.endpoint_id: row.sealed for row in db.session.scalars(select(WebhookSecret))}
    with transaction() as session:
        session.execute(
            update(WebhookSecret)
            .where(WebhookSecret.endpoint_id == made.endpoint.id)
            .values(sealed=sealed[other.endpoint.id])
        )
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    send_all()
    assert receiver.taken == []
    assert "cannot be decrypted" in (endpoint_of(made).last_answer or "")


def test_events_of_long_ago_are_forgotten_with_their_deliveries(alice: Person, add: Add) -> None:
    made = add()
    webhook_deliveries.send_test(alice.workspace, made.endpoint.id)
    send_all()
    assert not events.forget_old()
    assert count(WebhookAttempt) == 1
    with time_machine.travel(now() + timedelta(days=31), tick=True):
        events.forget_old()
    assert (count(WebhookEvent), count(WebhookDelivery), count(WebhookAttempt)) == (0, 0, 0)
