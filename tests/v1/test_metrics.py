"""Who may read the metrics, and what they never hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from services import keys
from services.parts import parts
from tests.neighbours.fake_provider import FakeProvider
from tests.people import bearer
from tests.services.test_metrics import numbers_in

TOKEN = "0123456789abcdef-metrics"
Mint = Callable[..., keys.Minted]


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """Nothing here is another on another database."""
    return one_database_url


@pytest.fixture
def token() -> str | None:
    return None


@pytest.fixture
def environment(environment: dict[str, str], token: str | None) -> dict[str, str]:
    return environment | ({"ARKA_METRICS_TOKEN": token} if token else {})


def test_without_a_token_only_the_machine_itself_reads_them(app: Flask, client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", environ_base={"REMOTE_ADDR": "::1"}).status_code == 200
    for refused in (
        client.get("/metrics", environ_base={"REMOTE_ADDR": "203.0.113.5"}),
        # A proxy on this machine that the settings do not know of.
        client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.5"}),
        client.get("/metrics", headers={"Forwarded": "for=203.0.113.5"}),
    ):
        assert refused.status_code == 403
        assert b"arka_requests_total" not in refused.data


@pytest.mark.parametrize("token", [TOKEN])
def test_with_a_token_everybody_needs_it(app: Flask, client: FlaskClient, token: str) -> None:
    away = {"REMOTE_ADDR": "203.0.113.5"}
    right = {"Authorization": f"Bearer {token}"}
    assert client.get("/metrics", environ_base=away, headers=right).status_code == 200
    for wrong in ({}, {"Authorization": f"Bearer {token}x"}, {"Authorization": f"Basic {token}"}, {"X-API-Key": token}):
        refused = client.get("/metrics", headers=wrong)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert b"arka_requests_total" not in refused.data


def test_no_label_is_chosen_by_a_caller(
    app: Flask, client: FlaskClient, mint: Mint, connect: Callable[[str, str], None], provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    minted = mint(environment="live")
    for number in range(3):
        body = {"model": f"canary-model-{number}", "messages": [{"role": "user", "content": "Hi"}]}
        client.post("/v1/chat/completions", json=body, headers=bearer(minted.secret))
        client.get(f"/canary-path-{number}")
        client.open("/v1/models", method=f"CANARY{number}")
        client.get(f"/v1/keys/canary-key-{number}", headers=bearer(minted.secret))
    text = client.get("/metrics").get_data(as_text=True)
    numbers = numbers_in(text)
    assert numbers['arka_requests_total{route="none",status="4xx"}'] >= 3
    assert numbers['arka_provider_seconds_count{provider="openai"}'] >= 3
    assert sum(number for name, number in numbers.items() if name.startswith("arka_provider_requests_total")) >= 3
    for secret in (
        "canary",
        "CANARY",
        minted.key.id,
        minted.secret.reveal(),
        provider.good_key,
        minted.key.workspace_id,
    ):
        assert secret not in text


def test_a_stream_is_open_until_it_ends(app: Flask, client: FlaskClient, mint: Mint) -> None:
    def open_streams() -> float:
        return numbers_in(client.get("/metrics").get_data(as_text=True)).get("arka_open_streams", 0.0)

    before = open_streams()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    response = client.post("/v1/chat/completions", json=body, headers=bearer(mint().secret), buffered=False)
    assert open_streams() == before + 1
    response.get_data()
    response.close()
    assert open_streams() == before


def test_an_open_breaker_is_told(app: Flask) -> None:
    breakers = parts().breakers
    for _ in range(50):
        breakers.failed("pvk_1")
    assert 'arka_breakers{state="open"} 1' in app.test_client().get("/metrics").get_data(as_text=True)
