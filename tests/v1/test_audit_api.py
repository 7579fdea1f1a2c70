"""``GET /v1/audit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from services import audit, keys
from services.actor import Actor
from tests.people import Person, bearer

Mint = Callable[..., keys.Minted]
OTHER = Actor(kind="api_key", id="key_other", name="deploy", address="203.0.113.7", client="curl/8")


@pytest.fixture
def ask(client: FlaskClient, mint: Mint) -> Callable[..., Any]:
    headers = bearer(mint("reader", scopes=["audit:read"]).secret)
    return lambda **query: client.get("/v1/audit", query_string=query, headers=headers)


Ask = Callable[..., Any]


def numbers(answer: Any) -> list[int]:
    return [entry["number"] for entry in answer.get_json()["data"]]


def test_entries_are_told_whole_and_paged_by_cursor(ask: Ask, alice: Person, charlie: Person) -> None:
    for number in range(5):
        audit.record(
            alice.workspace_id,
            OTHER,
            "key:change",
            object_id="key_1",
            object_name="Server",
            details={"n": number},
        )
    first = ask(limit=2)
    assert first.status_code == 200
    body = first.get_json()
    assert (body["object"], body["has_more"]) == ("list", True)
    entry = body["data"][0]
    assert entry.pop("at").endswith("Z")
    number = entry.pop("number")
    assert entry == {
        "object": "audit_entry",
        "action": "key:change",
        "actor": {
            "kind": "api_key", "id": "key_other", "name": "deploy", "address": "203.0.113.7", "client": "curl/8",
        },
        "target": {"id": "key_1", "name": "Server"},
        "details": {"n": 4},
    }  # fmt: skip
    seen, cursor = numbers(first), body["next_cursor"]
    while cursor:
        answer = ask(limit=2, cursor=cursor)
        seen += numbers(answer)
        cursor = answer.get_json()["next_cursor"]
    # Alice's alone, each once, the latest first.
    assert seen == list(range(number, 0, -1))


def test_filters(ask: Ask, alice: Person) -> None:
    audit.record(alice.workspace_id, OTHER, "key:change", object_id="key_1")
    assert len(numbers(ask(actor="key_other"))) == 1
    assert len(numbers(ask(action="key:change"))) == 1
    assert len(numbers(ask(action="workspace"))) == 1
    assert len(numbers(ask(object="key_1"))) == 1
    assert numbers(ask(**{"from": "2099-01-01"})) == []
    assert len(numbers(ask(to="2099-01-01", actor="key_other"))) == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "eA"}, "cursor"),
        ({"from": "soon"}, "from"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, "from"),
        ({"actor": "x" * 101}, "actor"),
        ({"who": "alice"}, "who"),
        ({"limit": ["1", "2"]}, "limit"),
    ],
)
def test_what_makes_no_sense_is_400(ask: Ask, query: dict[str, Any], param: str) -> None:
    answer = ask(**query)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)


def test_it_takes_the_scope(client: FlaskClient, mint: Mint) -> None:
    answer = client.get("/v1/audit", headers=bearer(mint(scopes=["usage:read"]).secret))
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "insufficient_scope")
    assert client.get("/v1/audit").status_code == 401


def test_a_publishable_key_is_told_of_nobody_s_name_and_address(client: FlaskClient, mint: Mint, alice: Person) -> None:
    headers = bearer(mint(kind="publishable", scopes=["audit:read"]).secret)
    answer = client.get("/v1/audit", headers=headers)
    assert answer.status_code == 200
    assert alice.email not in answer.text
    assert "127.0.0.1" not in answer.text
    assert answer.get_json()["data"][0]["action"] == "key:create"
