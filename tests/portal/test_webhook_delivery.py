"""Webhooks of a running portal: each event arrives, whichever process sends it and whichever dies."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from standardwebhooks.webhooks import Webhook

from models import Job, WebhookDelivery
from models.base import now
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.neighbours.webhook_receiver import WebhookReceiver
from tests.portal.database import run

pytestmark = pytest.mark.waits

PATIENCE_SECONDS = 30


@pytest.fixture
def portal() -> Iterator[Portal]:
    with running_portal({"ARKA_DEMO": "0", "ARKA_WEBHOOK_NETWORKS": "127.0.0.0/8"}, workers=2) as portal:
        yield portal


@pytest.fixture
def post(portal: Portal, new_key: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Send JSON to ``/v1`` with a key that may do everything."""
    key = new_key("manager")

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{portal.url}/v1/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    return post


def waiting(portal: Portal) -> int:
    return int(run(portal, select(func.count()).where(WebhookDelivery.delivered_at.is_(None)))[0][0])


def make_keys(post: Callable[..., dict[str, Any]], *names: str) -> None:
    for name in names:
        body = {"name": name, "kind": "secret", "environment": "test", "scopes": ["models:read"]}
        post("keys", body)


def test_every_event_of_several_processes_arrives_once_and_signed(
    post: Callable[..., dict[str, Any]], receiver: WebhookReceiver
) -> None:
    made = post("webhooks", {"url": f"{receiver.url}/arka", "events": ["key.created"]})
    names = [f"key {number:02}" for number in range(20)]
    make_keys(post, *names)
    assert wait_until(lambda: len(receiver.taken) >= len(names), PATIENCE_SECONDS)
    time.sleep(3)
    found = [Webhook(made["secret"]).verify(taken.body, taken.headers) for taken in receiver.taken]
    assert sorted(event["data"]["key"]["name"] for event in found) == names
    assert receiver.most_at_once == {"/arka": 1}


def test_what_was_being_sent_when_every_process_was_killed_is_sent_again_and_nothing_is_lost(
    portal: Portal, post: Callable[..., dict[str, Any]], receiver: WebhookReceiver
) -> None:
    for path in ("/hang", "/quick"):
        post("webhooks", {"url": receiver.url + path, "events": ["key.created"]})
    make_keys(post, "first")
    assert wait_until(lambda: {taken.path for taken in receiver.taken} == {"/hang", "/quick"}, PATIENCE_SECONDS)
    make_keys(post, "second")
    portal.kill()
    receiver.go_on.set()
    # The claims and leases of the dead lapse after two minutes.
    waits = update(WebhookDelivery).where(WebhookDelivery.delivered_at.is_(None))
    run(portal, waits.values(next_attempt_at=now() - timedelta(seconds=1)))
    run(portal, update(Job).values(held_until=None))
    portal.start()
    assert wait_until(lambda: waiting(portal) == 0, PATIENCE_SECONDS)
    assert wait_until(lambda: len(set(zip(receiver.ids(), paths(receiver), strict=True))) == 4, PATIENCE_SECONDS)
    hanging = [taken.headers["webhook-id"] for taken in receiver.taken if taken.path == "/hang"]
    assert len(hanging) == 3
    assert len(set(hanging)) == 2


def paths(receiver: WebhookReceiver) -> list[str]:
    return [taken.path for taken in receiver.taken]
