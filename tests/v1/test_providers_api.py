"""/v1/providers: connect, test and disconnect providers; no answer holds any part of a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import AuditEvent
from services import keys, provider_keys
from services.parts import parts
from services.permissions import Scope
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, bearer
from tests.v1.test_auth import error_of, refused

Mint = Callable[..., keys.Minted]
PROVIDERS = "/v1/providers"
FIELDS = {
    "id", "object", "provider", "title", "label", "state", "state_message", "state_seen_at", "checked_at",
    "credit_nano_usd", "created_at", "updated_at", "created_by",
}  # fmt: skip
# Every route, with a body that would be taken.
ROUTES: list[tuple[str, str, dict[str, Any] | None, str]] = [
    ("GET", "", None, "providers:read"),
    ("GET", "/openai", None, "providers:read"),
    ("PUT", "/openai", {"key": "sk-x"}, "providers:write"),
    ("DELETE", "/openai", None, "providers:write"),
    ("POST", "/openai/test", None, "providers:write"),
]

Call = Callable[..., TestResponse]


@pytest.fixture
def call(client: FlaskClient, mint: Mint, provider: FakeProvider) -> Call:
    """Call as alice's manager, or with another key. Every answer is searched for the keys of the provider."""
    manager = mint("Manager", environment="live", scopes=sorted(Scope))

    def call(method: str, path: str = "", *, secret: Secret | None = None, **more: Any) -> TestResponse:
        response = client.open(PROVIDERS + path, method=method, headers=bearer(secret or manager.secret), **more)
        for key in (provider.good_key, provider.openai_key, provider.broke_key, "sk-wrong-key-0123456789"):
            for part in (key[:10], key[len(key) // 2 :], key[-6:]):
                assert part not in response.text
        return response

    return call


def test_a_key_is_put_shown_replaced_tested_and_deleted(call: Call, provider: FakeProvider, alice: Person) -> None:
    response = call("PUT", "/openai", json={"key": f" {provider.good_key}\n", "label": " Team account "})
    made = response.get_json()
    assert response.status_code == 201
    assert set(made) == FIELDS
    facts = {name: made[name] for name in ("object", "provider", "title", "label", "state", "created_by")}
    assert facts == {
        "object": "provider_key", "provider": "openai", "title": "OpenAI", "label": "Team account", "state": "valid",
        "created_by": "Manager",
    }  # fmt: skip
    assert made["checked_at"].endswith("Z")
    assert made["credit_nano_usd"] is None

    assert call("GET", "/openai").get_json() == made
    listed = call("GET").get_json()
    assert listed == {"object": "list", "data": [made], "has_more": False, "next_cursor": None}

    response = call("PUT", "/openai", json={"key": provider.openai_key})
    assert response.status_code == 200
    assert response.get_json()["id"] == made["id"]
    assert response.get_json()["label"] == "Team account"
    assert opened(alice) == provider.openai_key

    provider.fault = "401"
    response = call("POST", "/openai/test")
    assert response.status_code == 200
    assert response.get_json()["state"] == "invalid"
    assert response.get_json()["state_message"].startswith("Incorrect API key provided: [key]")
    provider.fault = None
    assert call("POST", "/openai/test").get_json()["state"] == "valid"

    assert call("DELETE", "/openai").get_json() == {
        "id": made["id"], "object": "provider_key", "provider": "openai", "deleted": True,
    }  # fmt: skip
    assert provider_keys.connected(alice.workspace_id) == {}
    assert call("GET").get_json()["data"] == []
    actions = [entry.action for entry in db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).limit(3)]
    assert actions == ["provider_key:delete", "provider_key:replace", "provider_key:add"]


def opened(person: Person) -> str:
    return provider_keys.unseal(provider_keys.connected(person.workspace_id)["openai"]).reveal()


def test_openrouter_tells_its_credit(call: Call, provider: FakeProvider) -> None:
    made = call("PUT", "/openrouter", json={"key": provider.good_key}).get_json()
    assert (made["state"], made["credit_nano_usd"]) == ("valid", 8_750_000_000)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("wrong", "provider_rejected_key", "OpenAI does not accept this key. It was not saved."),
        ("broke", "provider_out_of_credit", "This OpenAI key works, but the account has no credit. It was not saved."),
    ],
)
def test_a_refused_key_is_told_by_its_code_and_not_kept(
    call: Call, provider: FakeProvider, alice: Person, name: str, code: str, words: str
) -> None:
    key = provider.broke_key if name == "broke" else "sk-wrong-key-0123456789"
    response = call("PUT", "/openai", json={"key": key})
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"], error["param"]) == (
        422, "invalid_request_error", code, "key",
    )  # fmt: skip
    assert error["details"]["fields"]["key"].startswith(words)
    assert provider_keys.of_workspace(alice.workspace) == []


def test_an_unreachable_provider_is_told_and_the_key_can_be_kept_unverified(
    call: Call, provider: FakeProvider, alice: Person
) -> None:
    call("PUT", "/openai", json={"key": provider.good_key})
    provider.fault = "500"
    response = call("PUT", "/openai", json={"key": provider.openai_key})
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (503, "provider_error", "provider_unreachable")
    assert response.headers["Retry-After"] == "5"
    assert opened(alice) == provider.good_key
    asked = len(provider.requests)
    response = call("PUT", "/openai", json={"key": provider.openai_key, "verify": False})
    assert (response.status_code, response.get_json()["state"], response.get_json()["checked_at"]) == (
        200, "unverified", None,
    )  # fmt: skip
    assert len(provider.requests) == asked
    assert opened(alice) == provider.openai_key


def test_what_cannot_be_taken_is_said_and_nothing_is_sent(call: Call, provider: FakeProvider) -> None:
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({}, "key", "Paste a key first."),
        ({"key": None}, "key", "Paste a key first."),
        ({"key": " "}, "key", "Paste a key first."),
        ({"key": 7}, "key", "Give a text"),
        ({"key": "two words"}, "key", "This is not a provider key. Check that you copied exactly the key"),
        ({"key": "sk-x", "label": "x" * 61}, "label", "Use at most 60 characters"),
        ({"key": "sk-x", "label": "a\0b"}, "label", "Use printable characters on one line"),
        ({"key": "sk-x", "verify": "no"}, "verify", "Give true or false"),
        ({"key": "sk-x", "base_url": "https://evil.example"}, "base_url", "There is no field “base_url”"),
    ]
    for body, field, sentence in wrong:
        response = call("PUT", "/openai", json=body)
        assert response.status_code == 422
        assert error_of(response)["details"]["fields"] == {field: sentence}
    assert provider.requests == []


def test_a_provider_that_does_not_exist_is_not_found(call: Call) -> None:
    for name in ("closedai", "OPENAI", "..%2fopenai", "é" * 100, "o" * 5000, "' OR '1'='1"):
        for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/test")):
            response = call(method, f"/{name}{path}", json={"key": "sk-x"} if method == "PUT" else None)
            assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


def test_a_provider_that_is_not_connected_is_not_found_whoever_else_has_one(
    call: Call, charlie: Person, provider: FakeProvider
) -> None:
    provider_keys.save(charlie.workspace, "openai", Secret(provider.good_key), actor=charlie.actor, check=False)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test")):
        response = call(method, f"/openai{path}")
        assert (response.status_code, error_of(response)["code"]) == (404, "not_found")
    assert call("GET").get_json()["data"] == []
    assert opened(charlie) == provider.good_key


def test_each_route_needs_its_scope(call: Call, mint: Mint, provider: FakeProvider) -> None:
    for scope in ("providers:read", "providers:write"):
        lacking = mint(f"Without {scope}", environment="live", scopes=sorted(set(Scope) - {Scope(scope)}))
        for method, path, body, needed in ROUTES:
            if needed == scope:
                refused(call(method, path, json=body, secret=lacking.secret), 403, "insufficient_scope")
    assert provider.requests == []


def test_a_key_of_a_provider_that_is_no_longer_offered_can_still_be_deleted(
    app: Flask, call: Call, provider: FakeProvider, alice: Person
) -> None:
    call("PUT", "/openrouter", json={"key": provider.good_key})
    del parts().providers["openrouter"]
    assert call("GET", "/openrouter").get_json()["title"] == "openrouter"
    assert call("POST", "/openrouter/test").status_code == 422
    assert call("DELETE", "/openrouter").status_code == 200


def test_a_test_key_reaches_no_provider_and_touches_no_provider_key(
    call: Call, mint: Mint, provider: FakeProvider, alice: Person
) -> None:
    call("PUT", "/openai", json={"key": provider.good_key})
    provider.requests.clear()
    secret = mint("CI", environment="test", scopes=sorted(Scope)).secret
    for method, path, body, scope in ROUTES:
        response = call(method, path, secret=secret, json=body)
        allowed = scope == "providers:read"
        assert response.status_code == (200 if allowed else 403), (method, path)
        assert allowed or response.get_json()["error"]["code"] == "permission_denied"
    assert provider.requests == []
    assert call("GET", "/openai").status_code == 200
