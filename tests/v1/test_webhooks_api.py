"""``/v1/webhooks``, status by status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks.webhooks import Webhook
from werkzeug.test import TestResponse

from extensions import db
from models import WebhookEndpoint
from services import events, keys, leases, webhook_deliveries, webhooks
from tests.neighbours.webhook_receiver import WebhookReceiver
from tests.people import Person, bearer

Mint = Callable[..., keys.Minted]
Ask = Callable[..., TestResponse]
URL = "https://hooks.example/arka"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"ARKA_WEBHOOK_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(autouse=True)
def _no_leases() -> Iterator[None]:
    yield
    leases._held.clear()


@pytest.fixture
def ask(client: FlaskClient, mint: Mint) -> Ask:
    """Ask with a live key that has the scope: ``ask("POST", "", {"url": ...}, **headers)``."""
    key = mint("Manager", environment="live", scopes=["webhooks:manage"])

    def ask(method: str, path: str = "", body: Any = None, secret: Any = None, **headers: str) -> TestResponse:
        sent = {**bearer(secret or key.secret), **headers}
        return client.open(f"/v1/webhooks{path}", method=method, headers=sent, json=body)

    return ask


def refused(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]["code"]


def test_an_endpoint_is_made_with_its_secret_and_shown_without(ask: Ask, alice: Person) -> None:
    body = {"url": URL, "description": "Billing", "events": ["key.deleted", "key.created"]}
    answer = ask("POST", "", body)
    assert answer.status_code == 201
    made = answer.get_json()
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["object"] == "webhook"
    assert (made["url"], made["description"], made["events"]) == (URL, "Billing", ["key.created", "key.deleted"])
    assert made["created_by"] == "Manager"
    for shown in (ask("GET", f"/{made['id']}"), ask("GET")):
        assert shown.status_code == 200
        assert "whsec_" not in shown.get_data(as_text=True)
    assert ask("GET", f"/{made['id']}").get_json() == made
    assert ask("GET").get_json() == {"object": "list", "data": [made], "has_more": False, "next_cursor": None}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "url"),
        ({"url": 7}, 422, "url"),
        ({"url": "http://hooks.example@8.8.8.8"}, 422, "url"),
        ({"url": "https://169.254.169.254/latest"}, 422, "url"),
        ({"url": URL, "events": "all"}, 422, "events"),
        ({"url": URL, "events": ["no.such"]}, 422, "events"),
        ({"url": URL, "description": "a\u0000b"}, 422, "description"),
        ({"url": URL, "evnets": []}, 422, "evnets"),
        ([], 400, None),
    ],
)
def test_what_cannot_be_taken_is_refused(ask: Ask, body: Any, status: int, field: str | None) -> None:
    answer = ask("POST", "", body)
    assert answer.status_code == status
    if field:
        assert list(answer.get_json()["error"]["details"]["fields"]) == [field]
    assert db.session.query(WebhookEndpoint).count() == 0


def test_the_same_request_makes_one_endpoint_and_tells_no_secret_twice(ask: Ask) -> None:
    once = {"Idempotency-Key": "n1"}
    first = ask("POST", "", {"url": URL}, **once)
    again = ask("POST", "", {"url": URL}, **once)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.get_json() == {**first.get_json(), "secret": None}
    assert refused(ask("POST", "", {"url": URL + "2"}, **once)) == (400, "idempotency_key_reused")
    path = f"/{first.get_json()['id']}"
    rotated = ask("POST", f"{path}/rotate-secret", {"overlap": "24h"}, **{"Idempotency-Key": "n2"})
    assert rotated.get_json()["secret"].startswith("whsec_")
    assert rotated.get_json()["previous_secret_ends_at"] is not None
    assert (
        ask("POST", f"{path}/rotate-secret", {"overlap": "24h"}, **{"Idempotency-Key": "n2"}).get_json()["secret"]
        is None
    )
    tests = [ask("POST", f"{path}/test", None, **{"Idempotency-Key": "n3"}) for _ in range(2)]
    assert [test.status_code for test in tests] == [202, 200]
    assert tests[0].get_json()["id"] == tests[1].get_json()["id"]


def test_an_endpoint_is_changed_disabled_and_deleted(ask: Ask) -> None:
    path = f"/{ask('POST', '', {'url': URL, 'events': ['key.created']}).get_json()['id']}"
    changed = ask("PATCH", path, {"description": "New", "events": None}).get_json()
    assert (changed["url"], changed["description"], changed["events"]) == (URL, "New", [])
    assert ask("PATCH", path, {"url": None}).status_code == 422
    assert ask("PATCH", path, {"disabled": "yes"}).status_code == 422
    disabled = ask("PATCH", path, {"disabled": True}).get_json()
    assert (disabled["disabled_reason"], disabled["description"]) == ("by hand", "New")
    assert refused(ask("POST", f"{path}/test")) == (400, "webhook_disabled")
    assert ask("PATCH", path, {"disabled": False}).get_json()["disabled_at"] is None
    assert ask("POST", f"{path}/rotate-secret", {"overlap": "1h"}).status_code == 422
    assert ask("DELETE", path).get_json()["deleted"] is True
    for method in ("GET", "PATCH", "DELETE"):
        assert refused(ask(method, path, {} if method == "PATCH" else None)) == (404, "not_found")


def test_lists_have_pages(ask: Ask, alice: Person) -> None:
    ids = [ask("POST", "", {"url": f"{URL}/{number}"}).get_json()["id"] for number in range(5)]
    delivered = [ask("POST", f"/{ids[0]}/test").get_json()["id"] for _ in range(3)]
    for path, newest_first in (("", ids[::-1]), (f"/{ids[0]}/deliveries", delivered[::-1])):
        found, cursor = [], ""
        while cursor is not None:
            page = ask("GET", f"{path}?limit=2{cursor and '&cursor=' + cursor}").get_json()
            found += [row["id"] for row in page["data"]]
            cursor = page["next_cursor"]
        assert found == newest_first
        assert refused(ask("GET", f"{path}?cursor=nonsense"))[0] == 400
        for limit in ("0", "101", "x", "²"):
            assert ask("GET", f"{path}?limit={limit}").status_code == 422


def test_only_a_live_key_with_the_scope_manages_webhooks(ask: Ask, mint: Mint) -> None:
    path = f"/{ask('POST', '', {'url': URL}).get_json()['id']}"
    rehearsing = mint("Test", scopes=["webhooks:manage"]).secret
    other = mint("Other", environment="live", scopes=["keys:write", "keys:read"]).secret
    for secret, status, code in ((rehearsing, 403, "permission_denied"), (other, 403, "insufficient_scope")):
        for method, where, body in (
            ("POST", "", {"url": URL}),
            ("PATCH", path, {"description": "x"}),
            ("POST", f"{path}/rotate-secret", {"overlap": "now"}),
            ("POST", f"{path}/test", None),
            ("POST", f"{path}/deliveries/whd_1/redeliver", None),
            ("DELETE", path, None),
        ):
            assert refused(ask(method, where, body, secret)) == (status, code)
    assert ask("GET", path, None, rehearsing).status_code == 200
    assert ask("GET", path, None, other).status_code == 403


def test_an_event_arrives_and_can_be_sent_again(app: Flask, ask: Ask, mint: Mint, receiver: WebhookReceiver) -> None:
    made = ask("POST", "", {"url": f"{receiver.url}/arka", "events": ["key.created"]}).get_json()
    key = mint("Fresh").key
    receiver.statuses = [500]
    for _ in range(2):
        webhook_deliveries.fan_out()
        webhook_deliveries.send_next()
    path = f"/{made['id']}/deliveries"
    (delivery,) = ask("GET", path).get_json()["data"]
    assert (delivery["type"], delivery["status"]) == ("key.created", "waiting")
    assert [(attempt["status"], attempt["error"]) for attempt in delivery["attempts"]] == [(500, None)]
    assert delivery["next_attempt_at"] is not None
    assert ask("GET", f"/{made['id']}").get_json()["failed_deliveries"] == 1
    assert refused(ask("POST", f"{path}/{delivery['id']}/redeliver")) == (400, "delivery_in_progress")
    ask("PATCH", f"/{made['id']}", {"disabled": True})
    ask("PATCH", f"/{made['id']}", {"disabled": False})
    assert ask("GET", f"{path}/{delivery['id']}").get_json()["status"] == "failed"
    leases._held.clear()
    again = ask("POST", f"{path}/{delivery['id']}/redeliver")
    assert (again.status_code, again.get_json()["status"]) == (202, "waiting")
    webhook_deliveries.send_next()
    assert ask("GET", f"{path}/{delivery['id']}").get_json()["status"] == "delivered"
    taken = receiver.taken[-1]
    event = Webhook(made["secret"]).verify(taken.body, taken.headers)
    assert event["data"]["key"]["id"] == key.id
    assert receiver.ids() == [delivery["message_id"]] * 2
    assert json.loads(receiver.taken[0].body) == event


def test_every_kind_can_be_asked_for(ask: Ask) -> None:
    assert ask("POST", "", {"url": URL, "events": list(events.KINDS)}).get_json()["events"] == list(events.KINDS)
    assert webhooks.MOST_ENDPOINTS == 20
