"""/v1/me and /v1/keys: what the pages do with keys, for programs."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from blueprints.v1.paging import cursor_after
from extensions import db
from models import AuditEvent, IdempotencyRecord
from models.base import now
from services import custom_scopes, keys, rotation, workspaces
from services.actor import Actor
from services.errors import InvalidInput
from services.permissions import Scope
from services.restrictions import Restrictions, widened
from services.secret import Secret
from tests.people import Person, bearer
from tests.v1.test_auth import error_of, refused

Mint = Callable[..., keys.Minted]
KEYS = "/v1/keys"
ALL = sorted(Scope)
NEW: dict[str, Any] = {"name": "CI", "kind": "secret", "environment": "test", "scopes": ["models:read"]}
FIELDS = {
    "id", "object", "name", "kind", "environment", "scopes", "preset", "masked", "status", "created_at", "created_by",
    "expires_at", "disabled_at", "last_used", "restrictions", "rotation", "due_for_rotation",
}  # fmt: skip
UNLIMITED = {"daily_limit_usd": None, "monthly_limit_usd": None, "allow_unknown_price": False}
UNRESTRICTED = {"models": [], "networks": [], "origins": [], "requests_per_minute": None, **UNLIMITED}
OTHER_IDS = [
    "key_00000000000000000000",
    "nothing",
    "' OR '1'='1",
    "1; DROP TABLE api_key; --",
    "%25",
    "..%2f",
    "é" * 100,
    "k" * 5000,
]
# Every route that names a key, with a body that would be taken.
ROUTES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "", None),
    ("PATCH", "", {"name": "Mine now"}),
    ("DELETE", "", None),
    ("POST", "/rotate", {"overlap": "now"}),
    ("POST", "/disable", None),
    ("POST", "/enable", None),
    ("POST", "/rotation/finish", None),
]


@pytest.fixture
def manager(mint: Mint) -> keys.Minted:
    """A live key of alice's that may do everything."""
    return mint("Manager", environment="live", scopes=ALL)


@pytest.fixture
def call(client: FlaskClient, manager: keys.Minted) -> Callable[..., TestResponse]:
    """Call as alice's manager, or with another key: ``call("GET", path, json=..., secret=...)``."""

    def call(method: str, path: str = "", *, secret: Secret | None = None, **more: Any) -> TestResponse:
        headers = {**bearer(secret or manager.secret), **more.pop("headers", {})}
        return client.open(KEYS + path, method=method, headers=headers, **more)

    return call


Call = Callable[..., TestResponse]


def fields_of(response: TestResponse) -> dict[str, str]:
    """Check a refusal of what was entered and return the sentence for each field."""
    error = error_of(response)
    assert (response.status_code, error["code"], error["type"]) == (422, "invalid_input", "invalid_request_error")
    fields: dict[str, str] = error["details"]["fields"]
    assert error["param"] == next(iter(fields))
    return fields


def restricted(owner: Person, **more: Any) -> keys.Minted:
    """A key that may manage keys, within bounds: ``restrictions``, ``scopes``, ``environment``, ``expires_at``."""
    settings = {"kind": "secret", "environment": "live", "scopes": ALL, **more}
    return keys.mint(owner.workspace, actor=owner.actor, name=f"Bounded {now().timestamp()}", **settings)


# ---- /v1/me


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_key_learns_what_it_is_and_may_do(client: FlaskClient, alice: Person, header: str) -> None:
    expires_at = datetime.fromisoformat("2099-02-18T14:00:00Z")
    minted = restricted(
        alice,
        scopes=["usage:read"],
        environment="test",
        expires_at=expires_at,
        restrictions=Restrictions(models=("gpt-4o",), networks=("127.0.0.0/8",), requests_per_minute=7),
    )
    secret = minted.secret.reveal()
    value = f"Bearer {secret}" if header == "Authorization" else secret
    response = client.get("/v1/me", headers={header: value})
    assert response.status_code == 200
    assert response.headers["X-RateLimit-Limit"] == "7"
    answer = response.get_json()
    reset = answer["ratelimit"].pop("reset")
    assert abs(reset - now().timestamp() - 60) < 3
    assert answer == {
        "id": minted.key.id,
        "object": "key",
        "name": minted.key.name,
        "kind": "secret",
        "environment": "test",
        "scopes": ["usage:read"],
        "expires_at": "2099-02-18T14:00:00Z",
        "restrictions": {
            "models": ["gpt-4o"],
            "networks": ["127.0.0.0/8"],
            "origins": [],
            "requests_per_minute": 7,
            **UNLIMITED,
        },
        "workspace": {"slug": alice.slug, "name": alice.workspace.name, "plan": "agency"},
        "ratelimit": {"limit": 7, "remaining": 6},
    }


def test_a_publishable_key_may_ask_too_and_a_stranger_may_not(client: FlaskClient, mint: Mint) -> None:
    answer = client.get("/v1/me", headers=bearer(mint(kind="publishable").secret)).get_json()
    assert (answer["kind"], answer["expires_at"], answer["restrictions"]) == ("publishable", None, UNRESTRICTED)
    refused(client.get("/v1/me"), 401, "authentication_required")


# ---- who may


def test_reading_needs_keys_read_and_changing_needs_keys_write(call: Call, mint: Mint) -> None:
    target = mint().key.id
    reader, nobody = mint(scopes=["keys:read"]).secret, mint(scopes=["models:read"]).secret
    for method, path, body in [("POST", "", NEW), ("GET", "", None), *((m, f"/{target}{p}", b) for m, p, b in ROUTES)]:
        scope = "keys:read" if method == "GET" else "keys:write"
        error = refused(call(method, path, json=body, secret=nobody), 403, "insufficient_scope")
        assert error["message"] == f"Scope '{scope}' is required for this endpoint"
        if method != "GET":
            refused(call(method, path, json=body, secret=reader), 403, "insufficient_scope")
    assert call("GET", secret=reader).status_code == 200
    assert call("GET", f"/{target}", secret=reader).status_code == 200


def test_without_a_key_every_route_is_401_and_with_two_400(client: FlaskClient, mint: Mint) -> None:
    minted = mint(scopes=ALL)
    both = {**bearer(minted.secret), "X-API-Key": minted.secret.reveal()}
    for method, path, body in [
        ("POST", "", NEW),
        ("GET", "", None),
        *((m, f"/{minted.key.id}{p}", b) for m, p, b in ROUTES),
    ]:
        refused(client.open(KEYS + path, method=method, json=body), 401, "authentication_required")
        refused(client.open(KEYS + path, method=method, json=body, headers=both), 400, "ambiguous_credentials")


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_keys_of_others_and_ids_of_nobody_are_404(
    call: Call, mint: Mint, charlie: Person, alice: Person, method: str, path: str, body: dict[str, Any] | None
) -> None:
    foreign, deleted = mint(owner=charlie).key, mint().key
    keys.delete(alice.workspace, deleted.id, actor=alice.actor)
    said = set()
    for key_id in (foreign.id, deleted.id, *OTHER_IDS):
        response = call(method, f"/{key_id}{path}", json=body)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (404, "not_found"), key_id
        said.add(error["message"])
    # An id with a slash is no id at all.
    assert said == {"There is no such object, or it is not yours.", "There is no such endpoint."}
    db.session.refresh(foreign)
    assert (foreign.status(), foreign.name, len(foreign.secrets)) == ("active", "key 1", 1)


# ---- list and get


def test_the_list_is_paged_by_cursor_newest_first(call: Call, mint: Mint, charlie: Person) -> None:
    made = [mint().key.id for _ in range(6)]
    mint(owner=charlie)
    seen, cursor, pages = [], None, 0
    while True:
        answer = call("GET", f"?limit=3&cursor={cursor}" if cursor else "?limit=3").get_json()
        assert set(answer) == {"object", "data", "has_more", "next_cursor"}
        assert answer["object"] == "list"
        assert all(set(key) == FIELDS for key in answer["data"])
        seen += [key["id"] for key in answer["data"]]
        pages += 1
        assert answer["has_more"] == (answer["next_cursor"] is not None)
        if not answer["has_more"]:
            break
        cursor = answer["next_cursor"]
    assert pages == 3
    assert seen[:6] == made[::-1]
    assert len(seen) == len(set(seen)) == 7  # the manager itself is the oldest


def test_a_page_ends_well_at_its_edge_and_a_deleted_key_s_cursor_still_points(
    call: Call, mint: Mint, alice: Person
) -> None:
    made = [mint().key.id for _ in range(3)]
    whole = call("GET", "?limit=4").get_json()
    assert (whole["has_more"], whole["next_cursor"], len(whole["data"])) == (False, None, 4)
    first = call("GET", "?limit=1").get_json()
    assert [key["id"] for key in first["data"]] == [made[2]]
    keys.delete(alice.workspace, made[2], actor=alice.actor)
    second = call("GET", f"?limit=1&cursor={first['next_cursor']}").get_json()
    assert [key["id"] for key in second["data"]] == [made[1]]


def test_keys_of_the_same_moment_are_neither_lost_nor_shown_twice(call: Call, mint: Mint) -> None:
    with time_machine.travel(now(), tick=False):
        made = {mint().key.id for _ in range(5)}
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            answer = call("GET", "?limit=2" + (f"&cursor={cursor}" if cursor else "")).get_json()
            seen += [key["id"] for key in answer["data"]]
            cursor = answer["next_cursor"]
    assert len(seen) == len(set(seen)) == 6
    assert made < set(seen)


def test_a_wrong_cursor_is_400_and_a_wrong_limit_422(call: Call, mint: Mint, charlie: Person) -> None:
    foreign = cursor_after(mint(owner=charlie).key.id)
    for cursor in ("", "x", "!!", "a" * 5000, "'", "%C3%A9", "AAAA", foreign, "a2V5X25vbmU"):
        response = call("GET", f"?cursor={cursor}")
        error = error_of(response)
        assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", "cursor"), cursor
    for limit in ("0", "101", "-1", "x", "", "1.5", "9" * 5000, "%C2%B2"):
        assert set(fields_of(call("GET", f"?limit={limit}"))) == {"limit"}
    for limit in ("1", "100"):
        assert call("GET", f"?limit={limit}").status_code == 200


def test_a_key_is_shown_with_everything_but_its_secret(
    call: Call, client: FlaskClient, mint: Mint, alice: Person
) -> None:
    minted = mint("Mobile app", scopes=["models:read"])
    before = call("GET", f"/{minted.key.id}").get_json()
    assert (before["last_used"], before["rotation"], before["due_for_rotation"]) == (None, None, False)
    client.get("/v1/models", headers={**bearer(minted.secret), "User-Agent": "app/2"})
    until = now() + timedelta(hours=1)
    rotation.rotate(alice.workspace, minted.key.id, actor=alice.actor, until=until)
    response = call("GET", f"/{minted.key.id}")
    key = response.get_json()
    secret = minted.secret.reveal()
    assert set(key) == FIELDS
    assert secret not in response.text
    assert key["rotation"]["previous_masked"] == f"arka_sk_test_{secret[13:17]}...{secret[-5:]}"
    assert key["rotation"]["previous_ends_at"] == until.isoformat().replace("+00:00", "Z")
    assert key["last_used"]["address"] == "127.0.0.1"
    assert key["last_used"]["client"] == "app/2"
    assert key["last_used"]["at"].endswith("Z")
    assert (key["status"], key["created_by"], key["object"]) == ("active", alice.email, "key")
    with time_machine.travel(now() + timedelta(days=91)):
        assert call("GET", f"/{minted.key.id}").get_json()["due_for_rotation"] is True


# ---- create


def test_a_new_key_shows_its_secret_once_and_works(call: Call, client: FlaskClient, manager: keys.Minted) -> None:
    response = call("POST", json={**NEW, "expires_at": "2099-01-01T02:00:00+02:00"})
    assert response.status_code == 201
    made = response.get_json()
    assert set(made) == FIELDS | {"key"}
    assert made["key"].startswith("arka_sk_test_")
    assert (made["expires_at"], made["scopes"], made["preset"]) == ("2099-01-01T00:00:00Z", ["models:read"], None)
    assert (made["created_by"], made["restrictions"]) == (manager.key.name, UNRESTRICTED)
    assert client.get("/v1/models", headers={"X-API-Key": made["key"]}).status_code == 200
    shown = call("GET", f"/{made['id']}").get_json()
    assert "key" not in shown
    assert shown["last_used"] is not None


def test_the_making_is_in_the_audit_log_under_the_key_s_name(call: Call, alice: Person, manager: keys.Minted) -> None:
    made = call("POST", json=NEW, headers={"User-Agent": "robot/1"}).get_json()
    event = db.session.query(AuditEvent).filter_by(object_id=made["id"]).one()
    assert (event.actor_kind, event.actor_name, event.action) == ("api_key", manager.key.name, "key:create")
    assert made["key"] not in str(vars(event))


def test_presets_restrictions_and_custom_scopes_are_taken(call: Call, alice: Person, mint: Mint) -> None:
    custom_scopes.define(alice.workspace, "emails:send", "Send e-mails", actor=alice.actor)
    made = call(
        "POST",
        json={
            "name": "a",
            "kind": "publishable",
            "environment": "live",
            "preset": "read_only",
            "restrictions": {"origins": ["https://Shop.example/"], "requests_per_minute": 10},
        },
    )
    assert made.status_code == 201
    assert made.get_json()["preset"] == "read_only"
    assert made.get_json()["key"].startswith("arka_pk_")
    assert made.get_json()["restrictions"] == {
        **UNRESTRICTED,
        "origins": ["https://shop.example"],
        "requests_per_minute": 10,
    }
    own = mint(scopes=["keys:write", "emails:send"], environment="live").secret
    made = call(
        "POST",
        secret=own,
        json={
            **NEW,
            "name": "b",
            "scopes": ["emails:send"],
            "restrictions": {"models": ["gpt-4o"], "networks": ["10.0.0.0/8", "2001:db8::/32"]},
        },
    )
    assert made.status_code == 201
    assert made.get_json()["restrictions"]["networks"] == ["10.0.0.0/8", "2001:db8::/32"]
    # The manager was made before the scope was, so it cannot pass it on.
    assert set(fields_of(call("POST", json={**NEW, "name": "c", "scopes": ["emails:send"]}))) == {"scopes"}


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"name": None}, {"name"}),
        ({"name": " "}, {"name"}),
        ({"name": 7}, {"name"}),
        ({"name": "x" * 61}, {"name"}),
        ({"name": "a\0b"}, {"name"}),
        ({"name": "Manager"}, {"name"}),
        ({"kind": "master"}, {"kind"}),
        ({"kind": None, "environment": None}, {"kind", "environment"}),
        ({"environment": "prod"}, {"environment"}),
        ({"scopes": []}, {"scopes"}),
        ({"scopes": None}, {"scopes"}),
        ({"scopes": "models:read"}, {"scopes"}),
        ({"scopes": [1]}, {"scopes"}),
        ({"scopes": ["models:write"]}, {"scopes"}),
        ({"scopes": ["models:read usage:read"]}, {"scopes"}),
        ({"preset": "full"}, {"scopes"}),
        ({"scopes": None, "preset": "royal"}, {"preset"}),
        ({"kind": "publishable", "scopes": ["chat:write"]}, {"scopes"}),
        ({"kind": "publishable", "scopes": ["billing:read"]}, {"scopes"}),
        ({"expires_at": "tomorrow"}, {"expires_at"}),
        ({"expires_at": "2099-01-01T00:00:00"}, {"expires_at"}),
        ({"expires_at": "2001-01-01T00:00:00Z"}, {"expires_at"}),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, {"expires_at"}),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, {"expires_at"}),
        ({"expires_at": 4102444800}, {"expires_at"}),
        ({"colour": "red"}, {"colour"}),
        ({"key": "arka_sk_x", "id": "key_1"}, {"key", "id"}),
        ({"restrictions": []}, {"restrictions"}),
        ({"restrictions": {"ips": []}}, {"restrictions.ips"}),
        ({"restrictions": {"models": "gpt-4o"}}, {"restrictions.models"}),
        ({"restrictions": {"models": ["a b"]}}, {"restrictions.models"}),
        ({"restrictions": {"networks": ["10.0.0.1/8"]}}, {"restrictions.networks"}),
        ({"restrictions": {"networks": ["here"]}}, {"restrictions.networks"}),
        ({"restrictions": {"origins": ["https://shop.example"]}}, {"restrictions.origins"}),
        ({"restrictions": {"requests_per_minute": 0}}, {"restrictions.requests_per_minute"}),
        ({"restrictions": {"requests_per_minute": 1001}}, {"restrictions.requests_per_minute"}),
        ({"restrictions": {"requests_per_minute": True}}, {"restrictions.requests_per_minute"}),
        ({"restrictions": {"requests_per_minute": "5"}}, {"restrictions.requests_per_minute"}),
        ({"restrictions": {"monthly_limit_usd": "-1"}}, {"restrictions.monthly_limit_usd"}),
        ({"restrictions": {"monthly_limit_usd": "ten"}}, {"restrictions.monthly_limit_usd"}),
        ({"restrictions": {"monthly_limit_usd": "1e99999999"}}, {"restrictions.monthly_limit_usd"}),
        ({"restrictions": {"monthly_limit_usd": "1e-99999999"}}, {"restrictions.monthly_limit_usd"}),
        ({"restrictions": {"monthly_limit_usd": True}}, {"restrictions.monthly_limit_usd"}),
        ({"restrictions": {"daily_limit_usd": [1]}}, {"restrictions.daily_limit_usd"}),
        ({"restrictions": {"daily_limit_usd": "0.0000000001"}}, {"restrictions.daily_limit_usd"}),
        ({"restrictions": {"allow_unknown_price": "yes"}}, {"restrictions.allow_unknown_price"}),
    ],
)
def test_what_cannot_be_taken_is_named(call: Call, alice: Person, change: dict[str, Any], fields: set[str]) -> None:
    assert set(fields_of(call("POST", json={**NEW, **change}))) == fields
    assert len(keys.living(alice.workspace)) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"name": NaN}', b"[" * 100_000])
def test_what_is_no_object_is_400(call: Call, manager: keys.Minted, body: bytes) -> None:
    for method, path in [("POST", ""), ("PATCH", f"/{manager.key.id}"), ("POST", f"/{manager.key.id}/rotate")]:
        response = call(method, path, data=body)
        assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


def test_of_many_unknown_fields_only_some_are_told_back(call: Call) -> None:
    wish = {**NEW, **{f"{number}" + "x" * 1000: 1 for number in range(1000)}}
    fields = fields_of(call("POST", json=wish))
    assert len(fields) == 10
    assert all(len(name) <= 60 for name in fields)


def test_methods_that_are_none_are_405(call: Call, manager: keys.Minted) -> None:
    for method, path in [
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", f"/{manager.key.id}"),
        ("GET", f"/{manager.key.id}/rotate"),
    ]:
        response = call(method, path)
        assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")


# ---- a key never passes on more than it has


def test_a_key_makes_none_that_can_do_more_or_lives_longer(call: Call, alice: Person) -> None:
    soon = now() + timedelta(days=1)
    own = restricted(alice, scopes=["keys:write", "models:read"], environment="test", expires_at=soon).secret
    until = soon.isoformat()
    assert call("POST", secret=own, json={**NEW, "expires_at": until}).status_code == 201
    for change, field in [
        ({"scopes": ["models:read", "usage:read"]}, "scopes"),
        ({"environment": "live"}, "environment"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": (soon + timedelta(seconds=1)).isoformat()}, "expires_at"),
    ]:
        wish = {**NEW, "name": "More", "expires_at": until, **change}
        assert set(fields_of(call("POST", secret=own, json=wish))) == {field}
    full = {"name": "Full", "kind": "secret", "environment": "test", "preset": "full", "expires_at": until}
    assert set(fields_of(call("POST", secret=own, json=full))) == {"scopes"}


BOUNDS = Restrictions(
    models=("gpt-4o", "gpt-4o-mini"),
    networks=("127.0.0.0/8", "10.0.0.0/8"),
    requests_per_minute=50,
    daily_limit_nano_usd=2_000_000_000,
    monthly_limit_nano_usd=5_000_000_000,
)
TIGHT: dict[str, Any] = {
    "models": ["gpt-4o"],
    "networks": ["10.1.0.0/16"],
    "requests_per_minute": 50,
    "daily_limit_usd": "2.00",
    "monthly_limit_usd": "4.50",
    "allow_unknown_price": False,
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"models": []}, "models"),
        ({"models": ["gpt-4o", "o3"]}, "models"),
        ({"networks": []}, "networks"),
        ({"networks": ["0.0.0.0/0"]}, "networks"),
        ({"networks": ["10.1.0.0/16", "192.0.2.0/24"]}, "networks"),
        ({"networks": ["::/0"]}, "networks"),
        ({"requests_per_minute": None}, "requests_per_minute"),
        ({"requests_per_minute": 51}, "requests_per_minute"),
        ({"daily_limit_usd": None}, "daily_limit_usd"),
        ({"daily_limit_usd": 2.01}, "daily_limit_usd"),
        ({"monthly_limit_usd": None}, "monthly_limit_usd"),
        ({"monthly_limit_usd": "5.000000001"}, "monthly_limit_usd"),
        ({"allow_unknown_price": True}, "allow_unknown_price"),
    ],
)
def test_a_restricted_key_passes_its_restrictions_on(
    call: Call, alice: Person, change: dict[str, Any], field: str
) -> None:
    minted = restricted(alice, restrictions=BOUNDS)
    own = minted.secret
    made = call("POST", secret=own, json={**NEW, "restrictions": TIGHT})
    assert made.status_code == 201
    wider = {"restrictions": {**TIGHT, **change}}
    name = f"restrictions.{field}"
    assert set(fields_of(call("POST", secret=own, json={**NEW, "name": "Wide", **wider}))) == {name}
    # Neither of a key it made nor of itself does it lift them.
    assert set(fields_of(call("PATCH", f"/{made.get_json()['id']}", secret=own, json=wider))) == {name}
    assert set(fields_of(call("PATCH", f"/{minted.key.id}", secret=own, json=wider))) == {name}
    assert call("GET", f"/{made.get_json()['id']}").get_json()["restrictions"] == {**TIGHT, "origins": []}


def test_restrictions_within_others_are_judged_by_what_they_let_through() -> None:
    halves = Restrictions(networks=("10.0.0.0/9", "10.128.0.0/9", "2001:db8::/33"))
    for network, wider in [
        ("10.0.0.0/8", False), ("10.0.0.0/7", True), ("10.9.8.7/32", False),
        ("2001:db8::/32", True), ("2001:db8::/48", False), ("::/0", True),
    ]:  # fmt: skip
        assert bool(widened(Restrictions(networks=(network,)), halves)) is wider, network
    assert widened(Restrictions(), Restrictions()) == {}
    assert set(widened(Restrictions(), Restrictions(origins=("https://a.example",)))) == {"origins"}


def test_a_key_reveals_no_secret_that_can_do_more_than_itself(call: Call, alice: Person, mint: Mint) -> None:
    soon = now() + timedelta(days=1)
    weak = restricted(alice, scopes=["keys:write", "models:read"], environment="test", expires_at=soon).secret
    bounded = restricted(alice, restrictions=BOUNDS).secret
    strong = mint(scopes=ALL).key.id
    live = mint(environment="live", scopes=["models:read"], expires_at=soon).key.id
    lasting = mint(scopes=["models:read"]).key.id
    equal = mint(scopes=["models:read"], expires_at=soon).key.id
    before = db.session.execute(text("SELECT count(*) FROM api_key_secret")).scalar_one()
    for secret, key_id, field in [
        (weak, strong, "scopes"),
        (weak, lasting, "expires_at"),
        (bounded, equal, "restrictions.networks"),
    ]:
        assert field in fields_of(call("POST", f"/{key_id}/rotate", secret=secret, json={"overlap": "24h"}))
    refused(call("POST", f"/{live}/rotate", secret=weak, json={"overlap": "24h"}), 403, "permission_denied")
    assert db.session.execute(text("SELECT count(*) FROM api_key_secret")).scalar_one() == before
    assert call("POST", f"/{equal}/rotate", secret=weak, json={"overlap": "now"}).status_code == 200


MANAGING = [
    ("PATCH", "", {"name": "Renamed"}),
    ("PATCH", "", {"expires_at": "2099-01-01T00:00:00Z"}),
    ("PATCH", "", {"restrictions": {"models": ["gpt-4o"]}}),
    ("POST", "/rotate", {"overlap": "now"}),
    ("POST", "/rotation/finish", None),
    ("POST", "/disable", None),
    ("POST", "/enable", None),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "path", "body"), MANAGING)
def test_a_test_key_manages_no_live_key_in_any_way(
    call: Call, alice: Person, mint: Mint, method: str, path: str, body: dict[str, Any] | None
) -> None:
    own = mint(scopes=ALL).secret
    live = mint(environment="live", scopes=["models:read"]).key
    rotation.rotate(alice.workspace, live.id, actor=alice.actor, until=now() + timedelta(hours=1))
    before = call("GET", f"/{live.id}").get_json()
    response = call(method, f"/{live.id}{path}", secret=own, json=body)
    error = refused(response, 403, "permission_denied")
    assert error["message"] == "A test key cannot manage live keys."
    assert call("GET", f"/{live.id}").get_json() == before
    # A live key may.
    if path == "/enable":
        keys.disable(alice.workspace, live.id, actor=alice.actor)
    assert call(method, f"/{live.id}{path}", json=body).status_code == 200


def test_a_key_enables_none_that_can_do_more_than_itself(call: Call, alice: Person, mint: Mint) -> None:
    """It may have been disabled because somebody else holds it."""
    weak = restricted(alice, scopes=["keys:write", "models:read"]).secret
    strong, equal = mint(scopes=ALL).key.id, mint(scopes=["models:read"]).key.id
    for key_id in (strong, equal):
        assert call("POST", f"/{key_id}/disable", secret=weak).get_json()["status"] == "disabled"
    assert set(fields_of(call("POST", f"/{strong}/enable", secret=weak))) == {"scopes"}
    assert call("GET", f"/{strong}").get_json()["status"] == "disabled"
    assert call("POST", f"/{equal}/enable", secret=weak).get_json()["status"] == "active"


def test_a_key_changes_the_expiry_of_none_that_can_do_more(call: Call, alice: Person, mint: Mint) -> None:
    soon = now() + timedelta(days=1)
    minted = restricted(alice, scopes=["keys:write"], expires_at=soon)
    strong = mint(scopes=ALL).key.id
    wish = {"expires_at": (soon - timedelta(hours=1)).isoformat()}
    assert set(fields_of(call("PATCH", f"/{strong}", secret=minted.secret, json=wish))) == {"scopes"}
    # And its own life it does not prolong.
    for later in (None, (soon + timedelta(days=1)).isoformat()):
        assert "expires_at" in fields_of(
            call("PATCH", f"/{minted.key.id}", secret=minted.secret, json={"expires_at": later})
        )
    assert call("PATCH", f"/{minted.key.id}", secret=minted.secret, json=wish).status_code == 200


def test_the_services_themselves_refuse_to_rotate_beyond_a_ceiling(alice: Person, mint: Mint) -> None:
    key = mint(scopes=["models:read"]).key
    ceiling = keys.Ceiling(frozenset(["usage:read"]), None, "live")
    with pytest.raises(InvalidInput) as caught:
        rotation.rotate(alice.workspace, key.id, actor=alice.actor, until=None, within=ceiling)
    assert set(caught.value.fields) == {"scopes"}


# ---- change, disable, enable, delete


def test_name_expiry_and_restrictions_are_changed_one_by_one(call: Call) -> None:
    made = call("POST", json={**NEW, "restrictions": {"models": ["gpt-4o"], "requests_per_minute": 9}}).get_json()
    path = f"/{made['id']}"
    assert call("PATCH", path, json={"name": "Renamed"}).get_json()["name"] == "Renamed"
    key = call("PATCH", path, json={"expires_at": "2099-01-01T00:00:00Z"}).get_json()
    assert (key["name"], key["expires_at"]) == ("Renamed", "2099-01-01T00:00:00Z")
    key = call("PATCH", path, json={"restrictions": {"networks": ["10.0.0.0/8"]}}).get_json()
    assert key["restrictions"] == {
        "models": ["gpt-4o"], "networks": ["10.0.0.0/8"], "origins": [], "requests_per_minute": 9, **UNLIMITED,
    }  # fmt: skip
    key = call(
        "PATCH", path, json={"expires_at": None, "restrictions": {"models": [], "requests_per_minute": None}}
    ).get_json()
    assert (key["expires_at"], key["restrictions"]) == (None, {**UNRESTRICTED, "networks": ["10.0.0.0/8"]})
    assert set(call("PATCH", path, json={}).get_json()) == FIELDS


def test_of_two_who_change_different_restrictions_in_the_same_moment_both_have_their_way(
    app: Flask, manager: keys.Minted, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{KEYS}/{call('POST', json={**NEW, 'restrictions': {'models': ['gpt-4o']}}).get_json()['id']}"
    both, change, headers = threading.Barrier(2), keys.change, bearer(manager.secret)

    def together(*args: Any, **values: Any) -> Any:
        # Each has read the key as it was before the other's change.
        both.wait(30)
        return change(*args, **values)

    monkeypatch.setattr(keys, "change", together)

    def send(restrictions: dict[str, Any]) -> int:
        with app.app_context():
            body = {"restrictions": restrictions}
            return app.test_client().patch(path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(2) as pool:
        changes = [{"networks": ["10.0.0.0/8"]}, {"requests_per_minute": 7, "models": []}]
        assert list(pool.map(send, changes)) == [200, 200]
    now_holding = call("GET", path.removeprefix(KEYS)).get_json()["restrictions"]
    assert now_holding == {**UNRESTRICTED, "networks": ["10.0.0.0/8"], "requests_per_minute": 7}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "Manager"}, "name"),
        ({"scopes": ["chat:write"]}, "scopes"),
        ({"kind": "publishable"}, "kind"),
        ({"environment": "live"}, "environment"),
        ({"disabled_at": None}, "disabled_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"restrictions": {"origins": ["https://shop.example"]}}, "restrictions.origins"),
    ],
)
def test_what_is_fixed_or_wrong_is_not_changed(call: Call, mint: Mint, change: dict[str, Any], field: str) -> None:
    minted = mint("Fixed")
    assert set(fields_of(call("PATCH", f"/{minted.key.id}", json=change))) == {field}
    assert call("GET", f"/{minted.key.id}").get_json()["name"] == "Fixed"


def test_disabled_enabled_and_deleted_hold_from_the_next_request(call: Call, client: FlaskClient, mint: Mint) -> None:
    minted = mint()
    headers, path = bearer(minted.secret), f"/{minted.key.id}"
    for _ in range(2):
        key = call("POST", f"{path}/disable").get_json()
        assert (key["status"], key["disabled_at"].endswith("Z")) == ("disabled", True)
    refused(client.get("/v1/models", headers=headers), 403, "disabled_api_key")
    for _ in range(2):
        assert call("POST", f"{path}/enable").get_json()["disabled_at"] is None
    assert client.get("/v1/models", headers=headers).status_code == 200
    response = call("DELETE", path)
    assert (response.status_code, response.get_json()) == (200, {"id": minted.key.id, "object": "key", "deleted": True})
    refused(client.get("/v1/models", headers=headers), 403, "invalid_api_key")
    assert call("DELETE", path).status_code == 404


def test_a_key_may_end_itself(call: Call, manager: keys.Minted) -> None:
    assert call("DELETE", f"/{manager.key.id}").get_json()["deleted"] is True
    refused(call("GET"), 403, "invalid_api_key")


# ---- rotate


def test_rotation_shows_a_new_secret_and_lets_the_old_one_live_as_asked(
    call: Call, client: FlaskClient, mint: Mint
) -> None:
    minted = mint()
    path = f"/{minted.key.id}/rotate"
    response = call("POST", path, json={"overlap": "1h"})
    assert response.status_code == 200
    rotated = response.get_json()
    assert set(rotated) == FIELDS | {"key"}
    assert rotated["id"] == minted.key.id
    assert rotated["rotation"]["previous_ends_at"].endswith("Z")
    for secret in (minted.secret.reveal(), rotated["key"]):
        assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200
    last = call("POST", path, json={"overlap": "now"}).get_json()
    assert last["rotation"] is None
    for secret in (minted.secret.reveal(), rotated["key"]):
        refused(client.get("/v1/models", headers={"X-API-Key": secret}), 403, "invalid_api_key")
    assert client.get("/v1/models", headers={"X-API-Key": last["key"]}).status_code == 200
    assert client.get("/v1/models", headers={"X-API-Key": last["key"]}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"overlap": None}, {"overlap": 7}, {"overlap": "never"}, {"overlap": "2001-01-01T00:00:00Z"},
        {"overlap": "9999-12-31T23:59:59-23:59"},
     {"overlap": "2099-01-01T00:00:00Z"}, {"overlap": "2098-01-01T00:00:00"}],
)  # fmt: skip
def test_an_overlap_that_cannot_be_is_named(call: Call, mint: Mint, body: dict[str, Any]) -> None:
    key = mint(expires_at=datetime.fromisoformat("2098-06-01T00:00:00Z")).key
    assert set(fields_of(call("POST", f"/{key.id}/rotate", json=body))) == {"overlap"}


def test_a_moment_and_nothing_else_is_taken_as_overlap(call: Call, mint: Mint) -> None:
    key = mint().key
    wish = {"overlap": "2099-01-01T00:00:00Z", "until": "x"}
    assert set(fields_of(call("POST", f"/{key.id}/rotate", json=wish))) == {"until"}
    del wish["until"]
    rotated = call("POST", f"/{key.id}/rotate", json=wish).get_json()
    assert rotated["rotation"]["previous_ends_at"] == "2099-01-01T00:00:00Z"


def test_a_rotation_can_be_finished(call: Call, client: FlaskClient, mint: Mint) -> None:
    minted = mint()
    path = f"/{minted.key.id}/rotation/finish"
    error = error_of(call("POST", path))
    assert (error["code"], error["type"]) == ("not_rotating", "invalid_request_error")
    rotated = call("POST", f"/{minted.key.id}/rotate", json={"overlap": "24h"}).get_json()
    assert client.get("/v1/models", headers=bearer(minted.secret)).status_code == 200
    answer = call("POST", path)
    assert (answer.status_code, answer.get_json()["rotation"]) == (200, None)
    assert client.get("/v1/models", headers=bearer(minted.secret)).status_code == 403
    assert client.get("/v1/models", headers={"X-API-Key": rotated["key"]}).status_code == 200


def test_a_limit_that_a_smaller_plan_would_not_give_may_stay(call: Call, alice: Person) -> None:
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=9000, actor=alice.actor)
    made = call("POST", json={**NEW, "restrictions": {"requests_per_minute": 5000}}).get_json()
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=None, actor=alice.actor)
    path = f"/{made['id']}"
    changed = call("PATCH", path, json={"restrictions": {"models": ["gpt-4o"]}})
    assert changed.get_json()["restrictions"]["requests_per_minute"] == 5000
    wider = call("PATCH", path, json={"restrictions": {"requests_per_minute": 5001}})
    assert set(fields_of(wider)) == {"restrictions.requests_per_minute"}


# ---- Idempotency-Key


def test_a_repeated_creation_makes_one_key_and_shows_no_secret(call: Call, alice: Person, manager: keys.Minted) -> None:
    once = {"Idempotency-Key": "deploy-42"}
    first = call("POST", json=NEW, headers=once)
    assert (first.status_code, "Idempotent-Replayed" in first.headers) == (201, False)
    secret = first.get_json()["key"]
    for _ in range(2):
        again = call("POST", json=NEW, headers=once)
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
        assert again.get_json()["key"] is None
        assert again.get_json()["id"] == first.get_json()["id"]
        assert secret not in again.text
    assert len(keys.living(alice.workspace)) == 2
    record = db.session.query(IdempotencyRecord).one()
    assert record.number == f"{manager.key.id}:deploy-42"
    assert len(record.request_digest) == len(hashlib.sha256().digest())
    # Also when the key has ended since.
    assert call("DELETE", f"/{first.get_json()['id']}").status_code == 200
    assert call("POST", json=NEW, headers=once).get_json()["status"] == "deleted"


def test_the_number_with_another_request_is_refused(call: Call, alice: Person, mint: Mint) -> None:
    once = {"Idempotency-Key": "n"}
    target = mint().key.id
    assert call("POST", json=NEW, headers=once).status_code == 201
    for path, body in [("", {**NEW, "name": "Other"}), (f"/{target}/rotate", {"overlap": "now"})]:
        response = call("POST", path, json=body, headers=once)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (400, "idempotency_key_reused")
    assert len(keys.living(alice.workspace)) == 3


def test_numbers_count_for_one_key_and_one_day(call: Call, mint: Mint) -> None:
    once = {"Idempotency-Key": "n"}
    other = mint(scopes=ALL).secret
    assert call("POST", json=NEW, headers=once).status_code == 201
    assert call("POST", json={**NEW, "name": "Other"}, headers=once, secret=other).status_code == 201
    with time_machine.travel(now() + timedelta(hours=23)):
        assert call("POST", json=NEW, headers=once).status_code == 200
    with time_machine.travel(now() + timedelta(hours=24, seconds=1)):
        later = call("POST", json={**NEW, "name": "A day later"}, headers=once)
        assert (later.status_code, later.get_json()["name"]) == (201, "A day later")


def test_a_refused_request_leaves_its_number_free(call: Call) -> None:
    once = {"Idempotency-Key": "n"}
    fields_of(call("POST", json={**NEW, "kind": "x"}, headers=once))
    assert call("POST", json=NEW, headers=once).status_code == 201


def test_a_repeated_rotation_rotates_once(call: Call, client: FlaskClient, mint: Mint) -> None:
    minted = mint()
    once = {"Idempotency-Key": "é ~ any printable"}
    path = f"/{minted.key.id}/rotate"
    first = call("POST", path, json={"overlap": "now"}, headers=once)
    assert first.status_code == 200
    again = call("POST", path, json={"overlap": "now"}, headers=once)
    assert (again.status_code, again.get_json()["key"]) == (200, None)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert client.get("/v1/models", headers={"X-API-Key": first.get_json()["key"]}).status_code == 200


def test_a_repeated_act_is_not_carried_out_again(call: Call, alice: Person, mint: Mint) -> None:
    """A late repetition must not undo what was done since."""
    key = mint().key
    path = f"/{key.id}"
    for act, undo in (("/disable", "/enable"), ("/enable", "/disable")):
        once = {"Idempotency-Key": act}
        assert "Idempotent-Replayed" not in call("POST", path + act, headers=once).headers
        undone = call("POST", path + undo).get_json()["status"]
        again = call("POST", path + act, headers=once)
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
        assert again.get_json()["status"] == undone
        call("POST", path + act)
    call("POST", f"{path}/rotate", json={"overlap": "1h"})
    once = {"Idempotency-Key": "finish"}
    for _ in range(2):
        assert call("POST", f"{path}/rotation/finish", headers=once).status_code == 200
    entries = db.session.query(AuditEvent).filter_by(action="key:finish_rotation").all()
    assert len(entries) == 1


def test_requests_with_one_number_at_the_same_time_are_carried_out_once(
    app: Flask, alice: Person, manager: keys.Minted, mint: Mint
) -> None:
    target = mint().key.id
    headers = {**bearer(manager.secret), "Idempotency-Key": "n"}

    def send(path: str, body: dict[str, Any]) -> TestResponse:
        with app.app_context():
            return app.test_client().post(KEYS + path, headers=headers, json=body)

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: send("", NEW), range(6)))
    assert sorted(response.status_code for response in made) == [200] * 5 + [201]
    assert len({response.get_json()["id"] for response in made}) == 1
    assert len([response for response in made if response.get_json()["key"] is not None]) == 1
    # The test's own session still saw the state before.
    db.session.rollback()
    assert len(keys.living(alice.workspace)) == 3
    headers["Idempotency-Key"] = "m"
    with ThreadPoolExecutor(6) as pool:
        rotated = list(pool.map(lambda _: send(f"/{target}/rotate", {"overlap": "1h"}), range(6)))
    assert {response.status_code for response in rotated} == {200}
    assert len([response for response in rotated if response.get_json()["key"] is not None]) == 1


@pytest.mark.parametrize("number", ["", "x" * 201, "a\tb", "a\x7fb"])
def test_a_number_that_is_none_is_400(call: Call, mint: Mint, number: str) -> None:
    for path, body in [("", NEW), (f"/{mint().key.id}/rotate", {"overlap": "now"})]:
        response = call("POST", path, json=body, headers={"Idempotency-Key": number})
        error = error_of(response)
        assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", "Idempotency-Key")
    assert call("POST", json=NEW, headers={"Idempotency-Key": "x" * 200}).status_code == 201


def test_no_secret_is_in_the_database(app: Flask, call: Call, mint: Mint) -> None:
    once = {"Idempotency-Key": "n"}
    made = call("POST", json=NEW, headers=once).get_json()
    rotated = call("POST", f"/{made['id']}/rotate", json={"overlap": "1h"}).get_json()
    secrets = [made["key"], rotated["key"]]
    url = app.config["SQLALCHEMY_DATABASE_URI"]
    if not url.startswith("sqlite"):
        return
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        dump = "\n".join(connection.iterdump())
    assert made["id"] in dump
    assert not [secret for secret in secrets if secret in dump]


def test_an_actor_without_a_person_is_named_on_what_it_made(alice: Person) -> None:
    robot = Actor(kind="api_key", name="Robot", id="key_1")
    minted = keys.mint(
        alice.workspace, actor=robot, name="n", kind="secret", environment="test", scopes=["models:read"]
    )
    assert (minted.key.created_by_id, minted.key.created_by_name) == (None, "Robot")
