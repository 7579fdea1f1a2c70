"""Restrictions of a key, seen from its caller."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from extensions import db
from models import UsageRecord
from services import keys, workspaces
from services.restrictions import Restrictions
from services.secret import Secret
from tests.people import Person, bearer

CHAT = "/v1/chat/completions"
HELLO = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def restricted(alice: Person) -> Callable[..., Secret]:
    def make(kind: str = "secret", **values: Any) -> Secret:
        return keys.mint(
            alice.workspace,
            actor=alice.actor,
            name=f"key {len(keys.living(alice.workspace))}",
            kind=kind,
            environment="test",
            restrictions=Restrictions(**values),
        ).secret

    return make


def answer(client: FlaskClient, secret: Secret, **more: Any) -> tuple[int, Any]:
    response = client.get("/v1/models", headers={**bearer(secret), **more.pop("headers", {})}, **more)
    return response.status_code, (response.get_json().get("error") or {}).get("code")


def test_an_address_outside_the_networks_is_refused(client: FlaskClient, restricted: Callable[..., Secret]) -> None:
    secret = restricted(networks=("203.0.113.0/24", "2001:db8::/32"))
    https = {"base_url": "https://portal.example"}
    for address, expected in [
        ("203.0.113.7", (200, None)),
        ("2001:db8::5", (200, None)),
        ("198.51.100.1", (403, "ip_not_allowed")),
        ("127.0.0.1", (403, "ip_not_allowed")),
    ]:
        assert answer(client, secret, environ_base={"REMOTE_ADDR": address}, **https) == expected


def test_a_header_a_stranger_can_set_does_not_move_the_address(
    client: FlaskClient, restricted: Callable[..., Secret]
) -> None:
    secret = restricted(networks=("203.0.113.0/24",))
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    assert answer(client, secret, headers=headers) == (403, "ip_not_allowed")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://shop.example", (200, None)),
        ("https://evil.example", (403, "origin_not_allowed")),
        (None, (403, "origin_not_allowed")),
    ],
)
def test_a_publishable_key_works_only_from_its_origins(
    client: FlaskClient, restricted: Callable[..., Secret], origin: str | None, expected: tuple[int, str | None]
) -> None:
    secret = restricted("publishable", origins=("https://shop.example",))
    assert answer(client, secret, headers={"Origin": origin} if origin else {}) == expected


def test_a_model_outside_the_list_is_refused_before_the_rate(
    client: FlaskClient, restricted: Callable[..., Secret]
) -> None:
    secret = restricted(models=("gpt-4o-mini",))
    response = client.post(CHAT, headers=bearer(secret), json=HELLO)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (403, "model_not_allowed")
    assert error["details"] == {"model": "gpt-4o", "allowed": ["gpt-4o-mini"]}
    assert response.headers["X-RateLimit-Remaining"] == "1000"
    assert client.post(CHAT, headers=bearer(secret), json={**HELLO, "model": "gpt-4o-mini"}).status_code == 200
    broken = client.post(CHAT, headers=bearer(secret), data=b"{")
    assert (broken.status_code, broken.headers["X-RateLimit-Remaining"]) == (400, "998")
    assert db.session.query(UsageRecord).order_by(UsageRecord.id.desc()).first().status == 400


def told(response: Any) -> dict[str, Any]:
    """The rate as both families of headers tell it, which have to agree."""
    headers = response.headers
    name, left, wait = re.fullmatch(r'"([a-z]+)";r=(\d+);t=(\d+)', headers["RateLimit"]).groups()
    policies = dict(re.findall(r'"([a-z]+)";q=(\d+);w=60(?:, |$)', headers["RateLimit-Policy"]))
    assert policies[name] == headers["X-RateLimit-Limit"]
    assert left == headers["X-RateLimit-Remaining"]
    assert abs(time.time() + int(wait) - int(headers["X-RateLimit-Reset"])) <= 2
    assert headers.get("Retry-After", wait) == wait
    return {"tightest": name, "left": int(left), "policies": policies}


def test_both_families_of_rate_headers_name_every_limit_and_tell_the_tighter_one(
    client: FlaskClient, restricted: Callable[..., Secret], alice: Person
) -> None:
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=5, actor=alice.actor)
    own, plain = restricted(requests_per_minute=3), restricted()
    both = {"key": "3", "workspace": "5"}

    def ask(secret: Secret) -> dict[str, Any]:
        return told(client.get("/v1/models", headers=bearer(secret)))

    assert ask(plain) == {"tightest": "workspace", "left": 4, "policies": {"workspace": "5"}}
    assert ask(own) == {"tightest": "key", "left": 2, "policies": both}
    assert [ask(plain)["left"] for _ in range(2)] == [2, 1]
    # The key has one more than the workspace by now.
    assert ask(own) == {"tightest": "workspace", "left": 0, "policies": both}
    refused = client.get("/v1/models", headers=bearer(own))
    assert refused.status_code == 429
    assert told(refused) == {"tightest": "workspace", "left": 0, "policies": both}
    # A refusal before the rate check counts nothing and tells as much.
    missing = client.get("/v1/usage", headers=bearer(own))
    assert missing.status_code == 429
    assert ask(plain) == {"tightest": "workspace", "left": 0, "policies": {"workspace": "5"}}


def test_a_key_s_own_rate_counts_beside_the_plan_s_and_the_tighter_is_told(
    client: FlaskClient, restricted: Callable[..., Secret]
) -> None:
    slow, other = restricted(requests_per_minute=2), restricted()
    remaining = [client.get("/v1/models", headers=bearer(slow)).headers["X-RateLimit-Remaining"] for _ in range(2)]
    assert remaining == ["1", "0"]
    refused = client.get("/v1/models", headers=bearer(slow))
    assert (refused.status_code, refused.headers["X-RateLimit-Limit"]) == (429, "2")
    # What the key's own limit refused has cost the workspace nothing.
    assert client.get("/v1/models", headers=bearer(other)).headers["X-RateLimit-Remaining"] == "997"


def test_what_the_workspace_s_limit_refuses_costs_the_key_s_own_nothing(
    client: FlaskClient, restricted: Callable[..., Secret], alice: Person
) -> None:
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=2, actor=alice.actor)
    own, other = restricted(requests_per_minute=2), restricted()
    assert [client.get("/v1/models", headers=bearer(other)).status_code for _ in range(2)] == [200, 200]
    for _ in range(3):
        refused = client.get("/v1/models", headers=bearer(own))
        assert (refused.status_code, told(refused)["tightest"]) == (429, "workspace")
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=9, actor=alice.actor)
    assert [client.get("/v1/models", headers=bearer(own)).status_code for _ in range(2)] == [200, 200]
