"""GET /v1/models: what a key can use now."""

from __future__ import annotations

from collections.abc import Callable

from flask.testing import FlaskClient

from services import keys
from tests.neighbours.fake_provider import FakeProvider
from tests.people import bearer

Mint = Callable[..., keys.Minted]
Connect = Callable[[str, str], None]


def test_a_test_key_sees_the_simulator_s_models(client: FlaskClient, mint: Mint, provider: FakeProvider) -> None:
    answer = client.get("/v1/models", headers=bearer(mint().secret)).get_json()
    assert answer["object"] == "list"
    assert {"gpt-4o", "anthropic/claude-3.5-sonnet"} <= {model["id"] for model in answer["data"]}
    assert {model["provider"] for model in answer["data"]} == {"simulator"}
    assert provider.requests == []


def test_a_live_key_sees_the_models_of_all_connected_providers(
    client: FlaskClient, mint: Mint, connect: Connect, provider: FakeProvider
) -> None:
    headers = bearer(mint(environment="live").secret)
    assert client.get("/v1/models", headers=headers).get_json()["data"] == []
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    models = client.get("/v1/models", headers=headers).get_json()["data"]
    assert {model["provider"] for model in models} == {"openai", "openrouter"}
    assert all(set(model) == {"id", "object", "created", "owned_by", "provider"} for model in models)


def test_one_model_is_found_by_its_name_with_or_without_a_slash(client: FlaskClient, mint: Mint) -> None:
    headers = bearer(mint().secret)
    for name in ("gpt-4o", "anthropic/claude-3.5-sonnet"):
        assert client.get(f"/v1/models/{name}", headers=headers).get_json()["id"] == name
    response = client.get("/v1/models/gpt-99", headers=headers)
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")


def test_a_provider_that_fails_is_left_out_while_another_answers(
    client: FlaskClient, mint: Mint, connect: Connect, provider: FakeProvider
) -> None:
    headers = bearer(mint(environment="live").secret)
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    provider.faults_by_path["/api/v1/"] = "503"
    models = client.get("/v1/models", headers=headers).get_json()["data"]
    assert {model["provider"] for model in models} == {"openai"}


def test_when_every_provider_fails_the_failure_is_told(
    client: FlaskClient, mint: Mint, connect: Connect, provider: FakeProvider
) -> None:
    headers = bearer(mint(environment="live").secret)
    connect("openai", provider.good_key)
    for fault, status, code in [
        ("503", 502, "provider_error"),
        ("garbage", 502, "provider_error"),
        ("reset", 503, "provider_unreachable"),
    ]:
        provider.fault = fault
        response = client.get("/v1/models", headers=headers)
        assert (response.status_code, response.get_json()["error"]["code"]) == (status, code)
