"""The pages about webhooks: a secret shown once, what is wrong in words, the log of deliveries."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select

from extensions import db
from models import WebhookEndpoint
from models.base import now
from services import keys, webhook_deliveries, webhooks
from tests.neighbours.webhook_receiver import WebhookReceiver
from tests.pages.visitor import Visitor
from tests.people import Person

Mint = Callable[..., keys.Minted]
SECRET = re.compile(r"whsec_[0-9A-Za-z+/=]{44}")


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"ARKA_WEBHOOK_NETWORKS": "127.0.0.0/8"}


@pytest.fixture
def endpoint(alice: Person, receiver: WebhookReceiver) -> WebhookEndpoint:
    return webhooks.create(
        alice.workspace, actor=alice.actor, url=f"{receiver.url}/arka", description="Billing"
    ).endpoint


def send_all() -> None:
    while webhook_deliveries.fan_out():
        pass
    while webhook_deliveries.send_next():
        pass


def test_an_endpoint_is_added_and_its_secret_is_shown_once(owner: Visitor, alice: Person) -> None:
    page = owner.open("/webhooks")
    assert "No endpoints yet" in page.text
    assert "/webhooks/new" in page.links
    form = owner.open("/webhooks/new")
    page = owner.send(
        form, url=" https://hooks.example/arka ", description="Billing", events=["key.created", "plan.changed"]
    )
    assert "Save the signing secret" in page.text
    assert owner.answer is not None
    assert owner.answer.headers["Cache-Control"] == "no-store"
    (secret,) = SECRET.findall(page.source)
    (row,) = webhooks.of_workspace(alice.workspace)
    assert (row.url, row.description, row.events) == (
        "https://hooks.example/arka",
        "Billing",
        ["key.created", "plan.changed"],
    )
    assert webhooks.signing_secrets(row)[0].reveal() == secret
    page = owner.send(form, url="https://hooks.example/arka")
    assert "This secret was already shown" in page.text
    assert len(webhooks.of_workspace(alice.workspace)) == 1
    for path in ("/webhooks", f"/webhooks/{row.id}", f"/webhooks/{row.id}/edit", f"/webhooks/{row.id}/rotate"):
        assert SECRET.search(owner.open(path).source) is None


def test_what_cannot_be_taken_is_told_at_its_field_and_what_was_typed_stays(owner: Visitor, alice: Person) -> None:
    for url, words in [
        ("", "Enter an address"),
        ("https://10.0.0.1/", "not public"),
        ("https://user:pw@hooks.example/", "Leave out user name and password"),
    ]:
        page = owner.submit("/webhooks/new", url=url, description="Mine", events=["key.deleted"])
        assert owner.status == 422
        assert "There is a problem" in page.text
        assert words in page.text
        sent = dict(page.main_form.fields)
        assert (sent["description"], sent["events"]) == ("Mine", "key.deleted")
    owner.post_by_hand("/webhooks/new", url="https://hooks.example/", events="no.such")
    assert owner.status == 422
    assert webhooks.of_workspace(alice.workspace) == []


def test_an_endpoint_is_changed(owner: Visitor, alice: Person, endpoint: WebhookEndpoint) -> None:
    page = owner.submit(f"/webhooks/{endpoint.id}/edit", description="Orders", events=["key.expired"])
    assert "The endpoint is saved." in page.text
    assert "Orders" in page.text
    assert "key.expired" in page.text
    page = owner.submit(f"/webhooks/{endpoint.id}/edit", url="ftp://x", description="Lost?")
    assert owner.status == 422
    assert dict(page.main_form.fields)["description"] == "Lost?"


@pytest.mark.parametrize(("overlap", "count"), [("24h", 2), ("now", 1)])
def test_a_secret_is_rotated(
    owner: Visitor, alice: Person, endpoint: WebhookEndpoint, overlap: str, count: int
) -> None:
    form = owner.open(f"/webhooks/{endpoint.id}/rotate")
    page = owner.send(form, overlap=overlap)
    (secret,) = SECRET.findall(page.source)
    assert ("two signatures" in page.text) == (count == 2)
    db.session.rollback()
    found = webhooks.signing_secrets(webhooks.get(alice.workspace, endpoint.id))
    assert [one.reveal() == secret for one in found] == [True, False][:count]
    assert "This secret was already shown" in owner.send(form, overlap=overlap).text
    owner.post_by_hand(f"/webhooks/{endpoint.id}/rotate", overlap="never")
    assert owner.status == 422


def test_a_test_is_sent_and_its_delivery_can_be_looked_at(
    owner: Visitor, endpoint: WebhookEndpoint, receiver: WebhookReceiver
) -> None:
    receiver.statuses = [502]
    receiver.answer = b"<b>bad gateway</b>"
    owner.post_by_hand(f"/webhooks/{endpoint.id}/test")
    page = owner.open(owner.path)
    assert "Not tried yet" in page.text
    delivery = owner.path
    send_all()
    page = owner.open(delivery)
    for words in ("webhook.test", "Waiting", "502", "<b>bad gateway</b>", f'"id": "{endpoint.id}"'):
        assert words in page.text
    page = owner.open("/webhooks")
    assert re.search(r"1 delivery failed since \d\d:\d\d UTC\. Last answer: 502\.", page.text)
    with time_machine.travel(now() + timedelta(seconds=7), tick=True):
        send_all()
    page = owner.open(f"/webhooks/{endpoint.id}")
    assert "failed since" not in page.text
    assert "Delivered" in page.text
    owner.post_by_hand(f"{delivery}/redeliver")
    with time_machine.travel(now() + timedelta(seconds=9), tick=True):
        send_all()
    assert len(receiver.taken) == 3
    assert len(set(receiver.ids())) == 1
    owner.post_by_hand(f"{delivery}/redeliver")
    page = owner.post_by_hand(f"{delivery}/redeliver")
    assert "This delivery is still being tried." in page.text


def test_an_endpoint_is_disabled_enabled_and_deleted(owner: Visitor, alice: Person, endpoint: WebhookEndpoint) -> None:
    page = owner.submit(f"/webhooks/{endpoint.id}/disable")
    assert "Nothing is sent to this endpoint." in page.text
    page = owner.post_by_hand(f"/webhooks/{endpoint.id}/test")
    assert "This endpoint is disabled. Enable it first." in page.text
    page = owner.post_by_hand(f"/webhooks/{endpoint.id}/enable")
    assert "Nothing is sent to this endpoint." not in page.text
    page = owner.submit(f"/webhooks/{endpoint.id}/delete")
    assert "The endpoint “Billing” is deleted." in page.text
    db.session.rollback()
    assert db.session.scalars(select(WebhookEndpoint)).all() == []


def test_the_log_has_pages_of_50(owner: Visitor, alice: Person, endpoint: WebhookEndpoint) -> None:
    for _ in range(51):
        webhook_deliveries.send_test(alice.workspace, endpoint.id)
    path = f"/webhooks/{endpoint.id}"
    page = owner.open(path)
    assert f"{path}?page=2" in page.links
    assert sum(link.startswith(f"{path}/deliveries/") for link in page.links) == 50
    page = owner.open(f"{path}?page=2")
    assert sum(link.startswith(f"{path}/deliveries/") for link in page.links) == 1
    for number in ("3", "0", "-1", "x", "99999999999999999999"):
        owner.open(f"{path}?page={number}")
        assert owner.status == 200


@pytest.mark.parametrize("who", ["viewer", "developer"])
def test_others_than_owners_and_admins_are_told_whom_to_ask(
    who: str, request: pytest.FixtureRequest, alice: Person, endpoint: WebhookEndpoint
) -> None:
    visitor: Any = request.getfixturevalue(who)
    for path in ("", "/new", f"/{endpoint.id}", f"/{endpoint.id}/edit", f"/{endpoint.id}/rotate"):
        page = visitor.open(f"/webhooks{path}")
        assert visitor.status == 403
        assert f"You need the admin role for this. Ask {alice.email} (owner)." in page.text
    for act in ("test", "enable", "disable", "delete", "rotate"):
        visitor.post_by_hand(f"/webhooks/{endpoint.id}/{act}")
        assert visitor.status == 403


def test_a_name_is_text_and_nothing_else(app: Flask, owner: Visitor, alice: Person) -> None:
    name = "<script>alert(1)</script>"
    made = webhooks.create(alice.workspace, actor=alice.actor, url="https://hooks.example/", description=name)
    for path in ("/webhooks", f"/webhooks/{made.endpoint.id}", f"/webhooks/{made.endpoint.id}/delete"):
        page = owner.open(path)
        assert name not in page.source
        assert name in page.text
