"""Guarding one's own services: /v1/keys/verify, /v1/auth, and what a browser may read of all that (CORS)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import UsageRecord
from models.base import now
from services import custom_scopes, key_history, keys, rotation, workspaces
from services.key_format import KeyFormat
from services.restrictions import Restrictions
from services.secret import Secret
from tests.people import Person, bearer
from tests.v1.test_auth import error_of, refused

Mint = Callable[..., keys.Minted]
Ask = Callable[..., dict[str, Any]]
AUTH, VERIFY = "/v1/auth", "/v1/keys/verify"
SHOP = "https://shop.example"
UNKNOWN = {"valid": False, "code": "invalid_api_key", "key": None, "scopes": [], "ratelimit": None}


@pytest.fixture
def asker(mint: Mint) -> keys.Minted:
    return mint("Asker", scopes=["keys:read"])


@pytest.fixture
def ask(client: FlaskClient, asker: keys.Minted) -> Ask:
    """Ask about a key and return the answer: ``ask(secret, scope="emails:send")``."""

    def ask(secret: Secret | str, **more: Any) -> dict[str, Any]:
        text = secret if isinstance(secret, str) else secret.reveal()
        response = client.post(VERIFY, headers=bearer(asker.secret), json={"key": text, **more})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.get_json()
        assert set(answer) == {"valid", "code", "key", "scopes", "ratelimit"}
        return answer

    return ask


def make(owner: Person, **more: Any) -> keys.Minted:
    settings = {"kind": "secret", "environment": "test", "scopes": ["models:read"], **more}
    return keys.mint(owner.workspace, actor=owner.actor, name=f"Made {now().timestamp()}", **settings)


def cors_of(response: TestResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers if name.startswith("Access-Control")}


# ---- /v1/keys/verify


def test_a_good_key_is_confirmed(ask: Ask, mint: Mint) -> None:
    minted = mint("Mobile", scopes=["models:read", "usage:read"])
    answer = ask(minted.secret, scope="models:read")
    reset = answer["ratelimit"].pop("reset")
    assert abs(reset - now().timestamp() - 60) < 3
    assert answer == {
        "valid": True,
        "code": None,
        "key": {
            "id": minted.key.id,
            "object": "key",
            "name": "Mobile",
            "kind": "secret",
            "environment": "test",
            "expires_at": None,
        },
        "scopes": ["models:read", "usage:read"],
        "ratelimit": {"limit": 1000, "remaining": 998},
    }
    assert ask(minted.secret)["valid"] is True
    assert ask(minted.secret.reveal() + " ")["valid"] is True


def test_keys_of_others_look_exactly_like_unknown_ones(ask: Ask, mint: Mint, alice: Person, charlie: Person) -> None:
    foreign, deleted, rotated = mint(owner=charlie), mint(), mint()
    frozen, gone = mint(owner=charlie), mint(owner=charlie)
    keys.delete(charlie.workspace, gone.key.id, actor=charlie.actor)
    keys.disable(charlie.workspace, frozen.key.id, actor=charlie.actor)
    keys.delete(alice.workspace, deleted.key.id, actor=alice.actor)
    rotation.rotate(alice.workspace, rotated.key.id, actor=alice.actor, until=None)
    unknown = KeyFormat("arka").generate("secret", "live").reveal()
    for text in (
        foreign.secret.reveal(),
        frozen.secret.reveal(),
        gone.secret.reveal(),
        deleted.secret.reveal(),
        rotated.secret.reveal(),
        unknown,
        unknown[:-1] + ("a" if unknown[-1] != "a" else "b"),
        "",
        "hello",
        "Bearer " + unknown,
        "' OR 1=1 --",
        "arka_sk_" + "é" * 32,
        "a\0b",
        "x" * 100_000,
    ):
        assert ask(text, scope="models:read") == UNKNOWN
    # Nothing of it is counted for, or kept about, the stranger's key.
    assert db.session.query(UsageRecord).filter_by(workspace_id=charlie.workspace_id).count() == 0


def test_an_ended_key_that_a_service_asks_about_is_an_attempt_with_it(ask: Ask, mint: Mint, alice: Person) -> None:
    minted = mint("gone")
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    assert ask(minted.secret, cost=0) == UNKNOWN
    assert key_history.attempts_since_end(minted.key) == []
    assert ask(minted.secret, address="203.0.113.9") == UNKNOWN
    (attempt,) = key_history.attempts_since_end(minted.key)
    assert attempt.address == "203.0.113.9"
    explained = key_history.explain(alice.workspace, attempt.request_id)
    assert explained.failed is not None
    assert explained.failed.name == "known"


def test_asking_about_many_unknown_keys_slows_nobody_down(environment: dict[str, str], request: Any) -> None:
    environment["ARKA_AUTH_FAILURES_PER_MINUTE"] = "2"
    ask: Ask = request.getfixturevalue("ask")
    for _ in range(5):
        assert ask("hello") == UNKNOWN


def test_each_refusal_has_its_code(ask: Ask, mint: Mint, alice: Person) -> None:
    disabled, expiring = mint(), mint(expires_at=now() + timedelta(hours=1))
    keys.disable(alice.workspace, disabled.key.id, actor=alice.actor)
    answer = ask(disabled.secret)
    assert (answer["valid"], answer["code"], answer["key"]["id"]) == (False, "disabled_api_key", disabled.key.id)
    assert answer["ratelimit"]["remaining"] == 999  # only the question itself
    answer = ask(expiring.secret, scope="emails:send")
    assert (answer["code"], answer["key"]["expires_at"][-1]) == ("insufficient_scope", "Z")
    with time_machine.travel(now() + timedelta(hours=2), tick=False):
        assert ask(expiring.secret)["code"] == "expired_api_key"


def test_networks_and_origins_are_judged_by_what_the_service_tells(ask: Ask, alice: Person) -> None:
    bound = make(alice, restrictions=Restrictions(networks=("203.0.113.0/24", "2001:db8::/32")))
    # Not told is not allowed: nobody has looked.
    assert ask(bound.secret)["code"] == "ip_not_allowed"
    assert ask(bound.secret, address="198.51.100.1")["code"] == "ip_not_allowed"
    for address in ("203.0.113.9", "2001:db8::1", "::ffff:203.0.113.9"):
        assert ask(bound.secret, address=address)["valid"] is True
    assert ask(bound.secret, address="203.0.113.9", origin=SHOP)["code"] == "secret_key_in_browser"
    page = make(alice, kind="publishable", restrictions=Restrictions(origins=(SHOP,)))
    assert ask(page.secret)["code"] == "origin_not_allowed"
    assert ask(page.secret, origin="https://evil.example")["code"] == "origin_not_allowed"
    assert ask(page.secret, origin=SHOP)["valid"] is True


def test_the_rate_of_the_asked_key_is_counted_by_cost(ask: Ask, alice: Person) -> None:
    minted = make(alice, restrictions=Restrictions(requests_per_minute=10))
    for cost, valid, remaining in [
        (0, True, 10),
        (4, True, 6),
        (None, True, 5),
        (6, False, 5),
        (5, True, 0),
        (1, False, 0),
    ]:
        answer = ask(minted.secret, **({} if cost is None else {"cost": cost}))
        rate = answer["ratelimit"]
        assert (answer["valid"], rate["limit"]) == (valid, 10), cost
        assert answer["code"] == (None if valid else "rate_limit_exceeded")
        if valid:
            assert rate["remaining"] == remaining, cost
    assert ask(minted.secret, cost=0)["code"] == "rate_limit_exceeded"


def test_a_confirmed_key_counts_as_used_unless_only_looked_at(ask: Ask, mint: Mint, alice: Person) -> None:
    minted = mint()
    ask(minted.secret, cost=0)
    assert minted.key.id not in keys.last_uses(alice.workspace)
    ask(minted.secret, address="203.0.113.9")
    assert keys.last_uses(alice.workspace)[minted.key.id].address == "203.0.113.9"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"key"}),
        ({"key": None}, {"key"}),
        ({"key": 7}, {"key"}),
        ({"key": "x", "scope": ["a"]}, {"scope"}),
        ({"key": "x", "cost": -1}, {"cost"}),
        ({"key": "x", "cost": 1001}, {"cost"}),
        ({"key": "x", "cost": 1.5}, {"cost"}),
        ({"key": "x", "cost": True}, {"cost"}),
        ({"key": "x", "address": "here"}, {"address"}),
        ({"key": "x", "origin": 1}, {"origin"}),
        ({"key": "x", "scopes": "a:b"}, {"scopes"}),
    ],
)
def test_a_question_that_is_none_is_422(
    client: FlaskClient, asker: keys.Minted, body: dict[str, Any], fields: set[str]
) -> None:
    response = client.post(VERIFY, headers=bearer(asker.secret), json=body)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (422, "invalid_input")
    assert set(error["details"]["fields"]) == fields


def test_asking_needs_keys_read_and_a_key(client: FlaskClient, mint: Mint) -> None:
    other = mint(scopes=["models:read"]).secret
    body = {"key": other.reveal()}
    refused(client.post(VERIFY, json=body), 401, "authentication_required")
    refused(client.post(VERIFY, json=body, headers=bearer(other)), 403, "insufficient_scope")
    asker = mint(scopes=["keys:read"]).secret.reveal()
    assert client.post(VERIFY, json=body, headers={"X-API-Key": asker}).get_json()["valid"] is True
    response = client.post(VERIFY, data=b"{", headers={"X-API-Key": asker})
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")
    assert body["key"] not in client.post(VERIFY, json=body, headers={"X-API-Key": asker}).text


# ---- /v1/auth


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_proxy_is_told_yes_and_who(client: FlaskClient, alice: Person, mint: Mint, method: str, header: str) -> None:
    custom_scopes.define(alice.workspace, "tasks:write", "Change tasks", actor=alice.actor)
    minted = mint("Bücher & Co", scopes=["tasks:write", "models:read"])
    secret = minted.secret.reveal()
    headers = {header: f"Bearer {secret}" if header == "Authorization" else secret}
    response = client.open(f"{AUTH}?scope=tasks:write", method=method, headers=headers)
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    told = response.headers
    assert told["X-Arka-Key-Id"] == minted.key.id
    assert told["X-Arka-Key-Name"].isascii()
    assert unquote(told["X-Arka-Key-Name"]) == "Bücher & Co"
    assert told["X-Arka-Workspace"] == alice.slug
    assert told["X-Arka-Scopes"] == "models:read tasks:write"
    assert told["X-Arka-Environment"] == "test"
    assert told["X-RateLimit-Remaining"] == "999"
    row = db.session.query(UsageRecord).one()
    assert (row.endpoint, row.status, row.api_key_id) == ("auth", 204, minted.key.id)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_missing_scope_is_refused_word_for_word_whether_it_exists_or_not(
    client: FlaskClient, alice: Person, mint: Mint, method: str
) -> None:
    secret = mint(scopes=["models:read"]).secret
    for _ in range(2):
        response = client.open(f"{AUTH}?scope=tasks:write", method=method, headers=bearer(secret))
        error = refused(response, 403, "insufficient_scope")
        assert error["message"] == "Scope 'tasks:write' is required for this endpoint"
        assert error["details"] == {"required": "tasks:write", "granted": ["models:read"]}
        assert not [name for name, _ in response.headers if name.startswith("X-Arka")]
        if custom_scopes.of_workspace(alice.workspace) == []:
            custom_scopes.define(alice.workspace, "tasks:write", "Change tasks", actor=alice.actor)
    assert client.open(AUTH, method=method, headers=bearer(secret)).status_code == 204


def test_the_proxy_gets_every_refusal_of_the_gate(client: FlaskClient, mint: Mint, alice: Person) -> None:
    minted = mint(expires_at=now() + timedelta(hours=1))
    secret = minted.secret
    refused(client.get(AUTH), 401, "authentication_required")
    refused(client.get(f"{AUTH}?api_key={secret.reveal()}"), 401, "authentication_required")
    refused(client.get(AUTH, headers={**bearer(secret), "X-API-Key": secret.reveal()}), 400, "ambiguous_credentials")
    refused(client.get(AUTH, headers={**bearer(secret), "Origin": SHOP}), 403, "secret_key_in_browser")
    with time_machine.travel(now() + timedelta(hours=2)):
        refused(client.get(AUTH, headers=bearer(secret)), 403, "expired_api_key")
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=1, actor=alice.actor)
    assert client.get(AUTH, headers=bearer(secret)).status_code == 204
    response = client.get(AUTH, headers=bearer(secret))
    refused(response, 429, "rate_limit_exceeded")
    assert int(response.headers["Retry-After"]) >= 1
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    refused(client.get(AUTH, headers=bearer(secret)), 403, "plan_required")
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    refused(client.get(AUTH, headers=bearer(secret)), 403, "invalid_api_key")


@pytest.mark.parametrize(
    "query",
    [
        "scope=",
        "scope=a:b&scope=c:d",
        "scope=a+b",
        "scope=%22",
        "scope=%5C",
        "scope=%0d%0aX: y",
        "scope=%C3%A9",
        "scope=" + "a" * 61,
    ],
)
def test_a_slip_in_the_proxy_s_question_does_not_open_the_door(client: FlaskClient, mint: Mint, query: str) -> None:
    response = client.get(f"{AUTH}?{query}", headers=bearer(mint().secret))
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", "scope")
    assert response.headers["X-RateLimit-Remaining"] == "999"
    # Who has no key is told nothing else first.
    refused(client.get(f"{AUTH}?{query}"), 401, "authentication_required")


@pytest.mark.parametrize(
    "scope", ["TASKS:WRITE", "'", "<script>", "tasks", "models:read,usage:read", "*", "{required}", "%25s"]
)
def test_odd_scopes_are_simply_not_held(client: FlaskClient, mint: Mint, scope: str) -> None:
    error = refused(client.get(f"{AUTH}?scope={scope}", headers=bearer(mint().secret)), 403, "insufficient_scope")
    assert error["details"]["required"] == scope.replace("%25", "%")


# ---- CORS


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_page_may_read_what_a_publishable_key_was_answered(client: FlaskClient, mint: Mint, header: str) -> None:
    secret = mint(kind="publishable").secret.reveal()
    headers = {header: f"Bearer {secret}" if header == "Authorization" else secret, "Origin": SHOP}
    for path, status in [("/v1/models", 200), ("/v1/models/none", 404), ("/v1/keys", 403), ("/v1/auth", 204)]:
        response = client.get(path, headers=headers)
        assert response.status_code == status
        told = cors_of(response)
        assert set(told) == {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
        assert told["Access-Control-Allow-Origin"] == SHOP
        exposed = set(told["Access-Control-Expose-Headers"].split(", "))
        assert {
            "X-Request-Id",
            "Retry-After",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
        } <= exposed
        assert "Origin" in response.headers["Vary"]
    # No browser, nothing to allow.
    headers.pop("Origin")
    assert cors_of(client.get("/v1/models", headers=headers)) == {}


def test_only_the_origins_on_the_list_may_read(client: FlaskClient, alice: Person) -> None:
    restrictions = Restrictions(origins=(SHOP,), requests_per_minute=1)
    secret = make(alice, kind="publishable", restrictions=restrictions).secret
    for origin in ("https://evil.example", "http://shop.example", f"{SHOP}.evil.example", f"{SHOP}:8443", "null"):
        response = client.get("/v1/models", headers={**bearer(secret), "Origin": origin})
        refused(response, 403, "origin_not_allowed")
        assert cors_of(response) == {}
    good = {**bearer(secret), "Origin": SHOP}
    assert cors_of(client.get("/v1/models", headers=good))["Access-Control-Allow-Origin"] == SHOP
    response = client.get("/v1/models", headers=good)
    refused(response, 429, "rate_limit_exceeded")
    assert cors_of(response)["Access-Control-Allow-Origin"] == SHOP


def test_secret_and_unknown_keys_get_no_cors_at_all(client: FlaskClient, mint: Mint) -> None:
    unknown = KeyFormat("arka").generate("publishable", "live")
    for headers in (bearer(mint().secret), bearer(unknown), {"Authorization": "Bearer x"}, {}):
        for path in ("/v1/models", "/v1/me", "/v1/auth", "/v1/nothing"):
            response = client.get(path, headers={**headers, "Origin": SHOP})
            assert response.status_code in (401, 403, 404)
            assert cors_of(response) == {}
            assert "Vary" not in response.headers or "Origin" not in response.headers["Vary"]
    assert cors_of(client.get("/v1/models", headers=bearer(mint().secret))) == {}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/chat/completions", "OPTIONS, POST"),
        ("/v1/keys", "GET, HEAD, OPTIONS, POST"),
        ("/v1/keys/key_1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
    ],
)
def test_a_preflight_is_answered_for_every_origin_without_a_key(client: FlaskClient, path: str, methods: str) -> None:
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    response = client.options(path, headers=asked)
    assert (response.status_code, response.data) == (204, b"")
    assert cors_of(response) == {
        "Access-Control-Allow-Origin": SHOP,
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": "Authorization, X-API-Key, Content-Type, Idempotency-Key",
        "Access-Control-Max-Age": "600",
    }
    assert "Origin" in response.headers["Vary"]


def test_every_endpoint_answers_a_preflight_with_its_own_methods(app: Flask, client: FlaskClient) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/v1/")]
    for rule in rules:
        path = re.sub(r"<[^>]+>", "x", rule.rule)
        methods = set().union(*(other.methods or () for other in rules if other.rule == rule.rule))
        for method in methods:
            asked = {"Origin": SHOP, "Access-Control-Request-Method": method}
            response = client.options(path, headers=asked)
            assert (response.status_code, response.data) == (204, b"")
            assert methods <= set(cors_of(response)["Access-Control-Allow-Methods"].split(", ")), path
        plain = client.options(path)
        assert (plain.status_code, plain.data, "Content-Type" in plain.headers) == (204, b"", False)
        assert methods <= set(plain.headers["Allow"].split(", "))
        assert plain.headers["X-Request-Id"].startswith("req_")
        assert cors_of(plain) == {}


def test_other_options_and_the_pages_know_no_cors(client: FlaskClient) -> None:
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "GET"}
    assert cors_of(client.options("/v1/models", headers={"Origin": SHOP})) == {}
    assert cors_of(client.options("/sign-in", headers=asked)) == {}
    assert client.options("/v1/nothing", headers=asked).status_code == 404


def test_the_three_are_guarded_like_all_of_v1(app: Flask) -> None:
    from blueprints.v1 import auth

    marks = {
        rule.rule: getattr(app.view_functions[rule.endpoint], auth.MARK)
        for rule in app.url_map.iter_rules()
        if rule.rule in (AUTH, VERIFY, "/v1/me")
    }
    assert marks[VERIFY] == "keys:read"
    assert marks["/v1/me"] == auth.NO_SCOPE
    assert marks[AUTH] == auth.ASKED_SCOPE
