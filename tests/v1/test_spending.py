"""Spending limits under /v1, and what calls cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import SpendingCounter, SpendingHold, UsageRecord
from services import key_history, keys, spending
from services.restrictions import Restrictions
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, bearer

Connect = Callable[[str, str], None]
Post = Callable[..., TestResponse]
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, world!"}]}
USD = 1_000_000_000


@pytest.fixture
def make(alice: Person) -> Callable[..., keys.Minted]:
    """Make a live key with spending limits: ``make(monthly_limit_nano_usd=...)``."""
    return functools.partial(_make, alice)


def _make(person: Person, environment: str = "live", **limits: Any) -> keys.Minted:
    return keys.mint(
        person.workspace,
        actor=person.actor,
        name=f"key {len(keys.living(person.workspace))}",
        kind="secret",
        environment=environment,
        restrictions=Restrictions(**limits),
    )


@pytest.fixture
def connected(connect: Connect, provider: FakeProvider) -> FakeProvider:
    connect("openai", provider.good_key)
    provider.requests.clear()
    return provider


def rows() -> list[UsageRecord]:
    return db.session.query(UsageRecord).order_by(UsageRecord.id).all()


def standing() -> list[tuple[int, int]]:
    return [(row.spent_nano_usd, row.held_nano_usd) for row in db.session.query(SpendingCounter)]


def cost_of(answer: dict[str, Any]) -> int:
    """What gpt-4o costs: $2.50 a million in, $10 a million out."""
    usage = answer["usage"]
    return int(usage["prompt_tokens"]) * 2500 + int(usage["completion_tokens"]) * 10_000


# ---- cost


@pytest.mark.parametrize("limit", [None, 5 * USD])
def test_a_call_s_row_has_its_cost_and_where_the_price_is_from(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider, limit: int | None
) -> None:
    secret = make(monthly_limit_nano_usd=limit).secret
    answer = client.post(CHAT, headers=bearer(secret), json=HELLO).get_json()
    streamed = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    client.post(CHAT, headers=bearer(secret), json=streamed).get_data()
    assert [row.cost_nano_usd for row in rows()] == [cost_of(answer)] * 2
    assert {row.price_version for row in rows()} == {"genai-prices 0.2.3"}
    assert standing() == ([] if limit is None else [(2 * cost_of(answer), 0)])


def test_a_test_key_costs_nothing(client: FlaskClient, make: Callable[..., keys.Minted]) -> None:
    secret = make("test", monthly_limit_nano_usd=0).secret
    assert client.post(CHAT, headers=bearer(secret), json=HELLO).status_code == 200
    assert [(row.cost_nano_usd, row.price_version) for row in rows()] == [(0, "simulator")]


def test_a_model_without_a_price_costs_unknown(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    imaginary = {**HELLO, "model": "gpt-imaginary"}
    assert client.post(CHAT, headers=bearer(make().secret), json=imaginary).status_code == 200
    assert [(row.cost_nano_usd, row.price_version) for row in rows()] == [(None, None)]


def test_a_call_that_no_provider_took_costs_nothing(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    secret = make().secret
    client.post(CHAT, headers=bearer(secret), json={"model": "gpt-4o"}).get_data()
    client.get("/v1/models", headers=bearer(secret))
    client.post(CHAT, headers=bearer(secret), json={**HELLO, "model": "x/y"})
    connected.fault = "429"
    client.post(CHAT, headers=bearer(secret), json=HELLO)
    assert {row.cost_nano_usd for row in rows() if row.status != 200 or row.endpoint == "models"} == {0}


# ---- the gate


def test_of_a_spent_limit_nothing_is_left_and_no_provider_is_asked(
    client: FlaskClient, alice: Person, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    minted = make()
    cost = cost_of(client.post(CHAT, headers=bearer(minted.secret), json=HELLO).get_json())
    limits = Restrictions(monthly_limit_nano_usd=cost)
    keys.change(alice.workspace, minted.key.id, actor=alice.actor, restrictions=limits)
    connected.requests.clear()
    response = client.post(CHAT, headers=bearer(minted.secret), json=HELLO)
    error = response.get_json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (402, "billing_error", "spending_limit_reached")
    assert (error["details"]["whose"], error["details"]["period"]) == ("key", "month")
    assert error["details"]["limit_usd"] == error["details"]["spent_usd"]
    assert error["details"]["held_usd"] == "0.00"
    assert error["details"]["resets_at"].endswith("-01T00:00:00Z")
    assert error["message"].startswith("Spending limit reached: of the $")
    assert "X-RateLimit-Remaining" in response.headers
    assert connected.requests == []
    assert (rows()[-1].code, rows()[-1].cost_nano_usd) == ("spending_limit_reached", 0)
    told = key_history.explain(alice.workspace, error["request_id"])
    assert told.failed is not None
    assert (told.failed.name, "spending limit" in told.advice) == ("spending", True)


def test_a_key_of_which_nothing_is_left_still_looks_and_manages(
    client: FlaskClient, make: Callable[..., keys.Minted]
) -> None:
    headers = bearer(make(daily_limit_nano_usd=0).secret)
    assert client.post(CHAT, headers=headers, json=HELLO).status_code == 402
    for path in ("/v1/models", "/v1/keys", "/v1/me"):
        assert client.get(path, headers=headers).status_code == 200


def test_the_workspace_s_limit_holds_for_all_its_live_keys(
    client: FlaskClient, alice: Person, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    limit = {"daily_nano_usd": 0, "monthly_nano_usd": None, "allow_unknown_price": False}
    spending.set_limits(alice.workspace, actor=alice.actor, **limit)  # type: ignore[arg-type]
    for _ in range(2):
        response = client.post(CHAT, headers=bearer(make().secret), json=HELLO)
        assert response.get_json()["error"]["details"]["whose"] == "workspace"
    assert client.post(CHAT, headers=bearer(make("test").secret), json=HELLO).status_code == 200


def test_verifying_a_key_tells_a_spent_limit_where_prompts_are_meant(
    client: FlaskClient, make: Callable[..., keys.Minted]
) -> None:
    asking, spent = make().secret, make(monthly_limit_nano_usd=0).secret
    for scope, code in (("chat:write", "spending_limit_reached"), ("models:read", None)):
        body = {"key": spent.reveal(), "scope": scope}
        answer = client.post("/v1/keys/verify", headers=bearer(asking), json=body).get_json()
        assert (answer["valid"], answer["code"]) == (code is None, code)
        status = client.get(f"/v1/auth?scope={scope}", headers=bearer(spent)).status_code
        assert status == (204 if code is None else 402)


# ---- what does not fit


def test_a_call_that_may_cost_more_than_is_left_is_refused_before_the_provider(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    headers = bearer(make(monthly_limit_nano_usd=USD).secret)
    response = client.post(CHAT, headers=headers, json={**HELLO, "max_tokens": 1_000_000})
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (402, "spending_limit_reached")
    assert float(error["details"]["call_usd"]) > 10
    assert connected.requests == []
    assert client.post(CHAT, headers=headers, json={**HELLO, "max_tokens": 2**63}).status_code == 402
    assert client.post(CHAT, headers=headers, json={**HELLO, "max_tokens": 100}).status_code == 200


def test_a_model_of_unknown_price_is_refused_under_a_limit(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    imaginary = {**HELLO, "model": "gpt-imaginary"}
    refused = client.post(CHAT, headers=bearer(make(monthly_limit_nano_usd=USD).secret), json=imaginary)
    error = refused.get_json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (402, "billing_error", "model_price_unknown")
    assert (error["param"], error["details"]) == ("model", {"model": "gpt-imaginary", "whose": "key"})
    assert connected.requests == []
    allowing = make(monthly_limit_nano_usd=USD, allow_unknown_price=True).secret
    assert client.post(CHAT, headers=bearer(allowing), json=imaginary).status_code == 200
    assert set(standing()) == {(0, 0)}


# ---- what is held is given back


@pytest.mark.parametrize("fault", ["500", "429", "401", "reset", "garbage", "truncated", "stall:1"])
@pytest.mark.parametrize("streamed", [True, False])
def test_however_a_provider_fails_nothing_stays_held(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider, fault: str, streamed: bool
) -> None:
    secret = make(monthly_limit_nano_usd=USD, daily_limit_nano_usd=USD).secret
    connected.fault = fault
    client.post(CHAT, headers=bearer(secret), json={**HELLO, "stream": streamed}).get_data()
    (row,) = rows()
    assert row.ended_at is not None
    assert standing() == [(row.cost_nano_usd or 0, 0)] * 2
    assert db.session.query(SpendingHold).count() == 0


def test_a_caller_who_hangs_up_holds_nothing_any_more(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    secret = make(monthly_limit_nano_usd=USD).secret
    connected.event_delay_seconds = 0.05
    response = client.post(CHAT, headers=bearer(secret), json={**HELLO, "stream": True})
    db.session.rollback()
    assert standing()[0][1] > 0
    response.close()
    db.session.rollback()
    (row,) = rows()
    assert standing() == [(row.cost_nano_usd or 0, 0)]


def test_keys_get_their_limits_as_text_or_number_and_show_them_as_text(
    app: Flask, client: FlaskClient, make: Callable[..., keys.Minted]
) -> None:
    headers = bearer(make().secret)
    wish = {"name": "Limited", "kind": "secret", "environment": "live", "preset": "full"}
    limits = {"monthly_limit_usd": "50", "daily_limit_usd": 2.5, "allow_unknown_price": True}
    made = client.post("/v1/keys", headers=headers, json={**wish, "restrictions": limits}).get_json()
    shown = {"monthly_limit_usd": "50.00", "daily_limit_usd": "2.50", "allow_unknown_price": True}
    assert shown.items() <= made["restrictions"].items()
    path = f"/v1/keys/{made['id']}"
    lifted = client.patch(path, headers=headers, json={"restrictions": {"daily_limit_usd": None}}).get_json()
    assert lifted["restrictions"] == {**made["restrictions"], "daily_limit_usd": None}


# ---- what would get round a limit


@pytest.mark.parametrize("name", ["models", "preset"])
def test_no_other_model_is_smuggled_past_a_limit(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider, name: str
) -> None:
    """OpenRouter falls back on the models of a list, at their price."""
    body = {**HELLO, name: ["openai/o1-pro"]}
    for limits in ({"monthly_limit_nano_usd": USD}, {"models": ("gpt-4o",)}):
        response = client.post(CHAT, headers=bearer(make(**limits).secret), json=body)
        assert (response.status_code, response.get_json()["error"]["param"]) == (400, name)
    assert connected.requests == []
    assert client.post(CHAT, headers=bearer(make().secret), json=body).status_code == 200


def test_a_bound_of_another_endpoint_is_none(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider
) -> None:
    """With it the call would hold one token, and the provider would not heed it."""
    headers = bearer(make(monthly_limit_nano_usd=USD // 100).secret)
    stated = client.post(CHAT, headers=headers, json={**HELLO, "max_tokens": 2000})
    assert stated.get_json()["error"]["code"] == "spending_limit_reached"
    connected.fault = "slow:1"
    body = {**HELLO, "max_output_tokens": 1, "stream": True}
    with client.post(CHAT, headers=headers, json=body, buffered=False) as response:
        assert response.status_code == 200
        (counter,) = db.session.query(SpendingCounter)
        assert counter.held_nano_usd == USD // 100


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False, "include_obfuscation": False}])
def test_under_a_limit_the_report_of_usage_cannot_be_declined(
    client: FlaskClient, make: Callable[..., keys.Minted], connected: FakeProvider, options: dict[str, bool] | None
) -> None:
    headers = bearer(make(monthly_limit_nano_usd=USD).secret)
    body = {**HELLO, "stream": True, "stream_options": options}
    assert client.post(CHAT, headers=headers, json=body).status_code == 200
    assert connected.requests[-1].json["stream_options"] == {**(options or {}), "include_usage": True}
    assert not rows()[-1].estimated


@pytest.mark.parametrize("before", ["", "\n", "\t", "x\n", "\0"])
def test_a_key_in_the_place_of_a_model_is_neither_kept_nor_a_fault_of_ours(
    client: FlaskClient, make: Callable[..., keys.Minted], before: str
) -> None:
    secret = make(models=("gpt-4o",)).secret
    for key in (secret.reveal(), "sk-proj-" + "A1b2" * 8):
        response = client.post(CHAT, headers=bearer(secret), json={**HELLO, "model": before + key})
        assert (response.status_code, response.get_json()["error"]["code"]) == (403, "model_not_allowed")
        assert key not in response.get_data(as_text=True)
        assert key not in repr([(row.details, row.model) for row in rows()])
    assert len(rows()) == 2
