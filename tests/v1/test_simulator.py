"""Rehearsals with a test key: what callers see is what the live way shows, headers and usage included."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import UsageRecord
from services import keys
from tests.neighbours.fake_provider import FakeProvider
from tests.people import bearer

Mint = Callable[..., keys.Minted]
Connect = Callable[[str, str], None]
CHAT = "/v1/chat/completions"


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: what is rehearsed does not depend on the database."""
    return one_database_url


@pytest.fixture
def ask(client: FlaskClient, mint: Mint) -> Callable[..., TestResponse]:
    """Send a chat request with a test key: ``ask("simulate:402", stream=True)``."""
    headers = bearer(mint().secret)

    def ask(text: str, **more: Any) -> TestResponse:
        return client.post(CHAT, headers=headers, json=asking(text, **more))

    return ask


def the_row() -> UsageRecord:
    return db.session.query(UsageRecord).one()


@pytest.mark.parametrize(
    ("trigger", "status", "type_", "code", "headers"),
    [
        ("401", 401, "authentication_error", "authentication_required", {"WWW-Authenticate": 'Bearer realm="arka"'}),
        ("402", 402, "billing_error", "spending_limit_reached", {}),
        (
            "403",
            403,
            "permission_error",
            "insufficient_scope",
            {"WWW-Authenticate": 'Bearer realm="arka", error="insufficient_scope", scope="chat:write"'},
        ),
        ("429:30", 429, "rate_limit_error", "rate_limit_exceeded", {"Retry-After": "30"}),
        ("503", 503, "service_unavailable", "service_unavailable", {"Retry-After": "2"}),
        ("provider-429:4", 429, "provider_error", "provider_rate_limited", {"Retry-After": "4"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_rehearsed_refusal_has_the_documented_shape_and_is_kept_as_usage(
    ask: Callable[..., TestResponse],
    trigger: str,
    status: int,
    type_: str,
    code: str,
    headers: dict[str, str],
    stream: bool,
) -> None:
    response = ask(f"simulate:{trigger}", stream=stream)
    error = response.get_json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (status, type_, code)
    assert set(error) == {"type", "code", "message", "param", "retry_after", "details", "request_id"}
    assert {name: response.headers[name] for name in headers} == headers
    assert error["retry_after"] == (int(headers["Retry-After"]) if "Retry-After" in headers else None)
    for name in ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Request-Id"):
        assert name in response.headers
    row = the_row()
    assert (row.status, row.code, row.provider, row.environment) == (status, code, "simulator", "test")


@pytest.mark.parametrize(
    ("trigger", "fault"),
    [
        ("provider-401", "401"),
        ("provider-402", "402"),
        ("provider-429:20", "429:20"),
        ("provider-500", "500"),
        ("provider-timeout", "hang:3"),
    ],
)
def test_a_rehearsed_failure_of_a_provider_is_what_the_real_one_leads_to(
    client: FlaskClient,
    mint: Mint,
    connect: Connect,
    provider: FakeProvider,
    ask: Callable[..., TestResponse],
    trigger: str,
    fault: str,
) -> None:
    connect("openai", provider.good_key)
    rehearsed = ask(f"simulate:{trigger}")
    provider.fault = fault
    real = client.post(CHAT, headers=bearer(mint(environment="live").secret), json=asking("hello"))
    for name in ("type", "code", "retry_after"):
        assert rehearsed.get_json()["error"][name] == real.get_json()["error"][name], name
    assert rehearsed.status_code == real.status_code
    for name in ("Retry-After", "x-should-retry"):
        assert rehearsed.headers.get(name) == real.headers.get(name), name


def test_a_cut_stream_ends_with_an_error_event_and_no_end(ask: Callable[..., TestResponse]) -> None:
    response = ask("simulate:cut", stream=True)
    assert response.status_code == 200
    lines = response.get_data().strip().split(b"\n\n")
    last = json.loads(lines[-1].removeprefix(b"data: "))
    assert last["error"]["code"] == "provider_unreachable"
    assert b"[DONE]" not in response.get_data()
    assert len(lines) > 3
    assert the_row().code == "provider_unreachable"


def test_a_slow_stream_takes_its_time_and_is_whole(ask: Callable[..., TestResponse]) -> None:
    begun = time.perf_counter()
    response = ask("simulate:slow:0.05", stream=True, max_tokens=10)
    data = response.get_data()
    assert time.perf_counter() - begun >= 0.5
    assert data.endswith(b"data: [DONE]\n\n")


def test_a_countdown_counts_down(ask: Callable[..., TestResponse]) -> None:
    until = int(time.time()) + 2
    first = ask(f"simulate:429:until:{until}")
    assert first.status_code == 429
    time.sleep(int(first.headers["Retry-After"]) + 0.1)
    assert ask(f"simulate:429:until:{until}").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": "simulate:402"}),
        ("embeddings", {"input": "simulate:402"}),
        ("embeddings", {"input": ["one", "simulate:402"]}),
        ("responses", {"input": "simulate:402"}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "simulate:402"}]}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "simulate:402"}]}]}),
    ],
)
def test_a_trigger_word_works_in_every_shape(client: FlaskClient, mint: Mint, path: str, body: dict[str, Any]) -> None:
    response = client.post(f"/v1/{path}", headers=bearer(mint().secret), json={"model": "m", **body})
    assert (response.status_code, response.get_json()["error"]["code"]) == (402, "spending_limit_reached")


def test_a_live_key_rehearses_nothing(
    client: FlaskClient, mint: Mint, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    response = client.post(CHAT, headers=bearer(mint(environment="live").secret), json=asking("simulate:402"))
    assert response.status_code == 200


def test_arkabrain_chooses_for_a_test_key_as_if_all_were_connected(ask: Callable[..., TestResponse]) -> None:
    response = ask("Write a poem about the sea", model="auto")
    assert response.status_code == 200
    assert response.headers["X-Arka-Model"] == response.get_json()["model"] == "anthropic/claude-sonnet-4.5"
    assert response.headers["X-Arka-Route-Reason"].startswith("writing: ")


def test_the_chosen_models_are_among_those_that_a_test_key_is_shown(client: FlaskClient, mint: Mint) -> None:
    from services.parts import parts

    shown = {model["id"] for model in client.get("/v1/models", headers=bearer(mint().secret)).get_json()["data"]}
    assert {task.models[0].name for task in parts().brain.tasks.values()} <= shown
