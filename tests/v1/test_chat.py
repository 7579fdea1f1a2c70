"""POST /v1/chat/completions: the simulator for test keys, the relay for live ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import UsageRecord
from services import keys
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, bearer

Mint = Callable[..., keys.Minted]
Connect = Callable[[str, str], None]
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, world!"}]}


def error_of(response: TestResponse) -> dict[str, Any]:
    error: dict[str, Any] = response.get_json()["error"]
    return error


def events_of(response: TestResponse) -> list[Any]:
    lines = response.get_data(as_text=True).split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line and line != "data: [DONE]"]


def the_row() -> UsageRecord:
    return db.session.query(UsageRecord).one()


@pytest.fixture
def live(mint: Mint) -> dict[str, str]:
    return bearer(mint(environment="live").secret)


@pytest.fixture
def simulated(mint: Mint) -> dict[str, str]:
    return bearer(mint().secret)


# ---- the simulator


def test_a_test_key_is_answered_by_the_simulator_and_no_provider(
    client: FlaskClient, simulated: dict[str, str], provider: FakeProvider
) -> None:
    response = client.post(CHAT, headers=simulated, json=HELLO)
    answer = response.get_json()
    assert answer["object"] == "chat.completion"
    assert "Hello, world!" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert provider.requests == []
    row = the_row()
    assert (row.provider, row.model, row.environment) == ("simulator", "gpt-4o", "test")
    assert (row.input_tokens, row.output_tokens) == (
        answer["usage"]["prompt_tokens"],
        answer["usage"]["completion_tokens"],
    )


def test_the_simulator_is_deterministic_and_streams_the_same_words(
    client: FlaskClient, simulated: dict[str, str]
) -> None:
    first, second = (client.post(CHAT, headers=simulated, json=HELLO).get_json() for _ in range(2))
    assert {**first, "created": 0} == {**second, "created": 0}
    streamed = client.post(CHAT, headers=simulated, json={**HELLO, "stream": True})
    assert streamed.content_type == "text/event-stream"
    assert streamed.get_data().endswith(b"data: [DONE]\n\n")
    words = [event["choices"][0]["delta"].get("content", "") for event in events_of(streamed)]
    assert "".join(words) == first["choices"][0]["message"]["content"]


def test_the_simulator_tells_usage_on_a_stream_when_asked(client: FlaskClient, simulated: dict[str, str]) -> None:
    asked = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    last = events_of(client.post(CHAT, headers=simulated, json=asked))[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == the_row().output_tokens


def test_the_simulator_stops_at_the_wanted_length(client: FlaskClient, simulated: dict[str, str]) -> None:
    answer = client.post(CHAT, headers=simulated, json={**HELLO, "max_tokens": 3}).get_json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": ["gpt-4o"]}, "model"),
        ({"model": "gpt-4o"}, "messages"),
        ({"model": "gpt-4o", "messages": []}, "messages"),
        ({"model": "gpt-4o", "messages": "hello"}, "messages"),
        ({"model": "gpt-4o", "messages": [1]}, "messages[0]"),
        ({"model": "gpt-4o", "messages": [{"content": "x"}]}, "messages[0]"),
        ({**HELLO, "max_tokens": -1}, "max_tokens"),
        ({**HELLO, "max_tokens": "many"}, "max_tokens"),
    ],
)
def test_a_request_that_makes_no_sense_is_400_and_says_where(
    client: FlaskClient, simulated: dict[str, str], body: dict[str, Any], param: str
) -> None:
    response = client.post(CHAT, headers=simulated, json=body)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert error_of(response)["param"] == param
    assert the_row().status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"[" * 100_000,
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_sensible_json_object_is_400(
    client: FlaskClient, simulated: dict[str, str], body: bytes
) -> None:
    response = client.post(CHAT, headers=simulated, data=body, content_type="application/json")
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


def test_a_body_with_many_brackets_that_is_not_deep_is_fine(client: FlaskClient, simulated: dict[str, str]) -> None:
    body = {**HELLO, "messages": HELLO["messages"] * 100, "logit_bias": [[] for _ in range(500)]}
    assert client.post(CHAT, headers=simulated, json=body).status_code == 200


def test_a_body_that_is_too_large_is_413(client: FlaskClient, simulated: dict[str, str]) -> None:
    response = client.post(CHAT, headers=simulated, data=b" " * 10_000_001, content_type="application/json")
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")


def test_odd_text_in_the_model_s_name_is_stored_as_far_as_it_can_be(
    client: FlaskClient, simulated: dict[str, str]
) -> None:
    response = client.post(CHAT, headers=simulated, json={**HELLO, "model": "a\0b" + "x" * 500})
    assert response.status_code == 200
    assert the_row().model == ("ab" + "x" * 500)[:200]


# ---- the relay


def test_a_live_key_reaches_the_provider_with_the_provider_key_and_nothing_of_ours(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.requests.clear()
    sent = {**HELLO, "future_field": {"kept": [1, 2.5, None]}, "temperature": 0.1}
    body = json.dumps(sent, indent=1).encode()
    headers = {**live, "Cookie": "portal=canary", "X-Canary": "canary", "OpenAI-Organization": "canary"}
    response = client.post(CHAT, headers=headers, data=body, content_type="application/json")
    assert response.status_code == 200
    assert "Hello, world!" in response.get_json()["choices"][0]["message"]["content"]
    (received,) = provider.requests
    assert (received.endpoint, received.key) == ("chat/completions", provider.good_key)
    assert received.body == body
    assert live["Authorization"].split("_")[-1] not in str(received.headers)
    assert "canary" not in str(received.headers)


def test_a_relayed_call_is_metered(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    usage = client.post(CHAT, headers=live, json=HELLO).get_json()["usage"]
    row = the_row()
    assert (row.provider, row.model, row.status, row.streamed) == ("openai", "gpt-4o", 200, False)
    assert (row.input_tokens, row.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert row.ended_at is not None
    assert row.duration_ms is not None


def test_a_stream_passes_byte_for_byte_and_is_metered(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    asked = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    response = client.post(CHAT, headers=live, json=asked)
    assert response.content_type.startswith("text/event-stream")
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.get_data().endswith(b"data: [DONE]\n\n")
    row = the_row()
    assert (row.streamed, row.code, row.ended_at is not None) == (True, None, True)
    assert row.output_tokens == events_of(response)[-1]["usage"]["completion_tokens"]


def test_the_row_of_a_stream_is_there_before_its_first_byte_and_settled_before_its_last(
    app: Flask, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.event_delay_seconds = 0.05
    response = app.test_client().post(CHAT, headers=live, json={**HELLO, "stream": True}, buffered=False)
    chunks = iter(response.iter_encoded())
    db.session.rollback()
    assert (the_row().status, the_row().ended_at) == (200, None)
    list(chunks)
    db.session.rollback()
    assert the_row().ended_at is not None
    response.close()


def test_a_caller_who_hangs_up_is_metered_and_frees_the_provider(
    app: Flask, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.event_delay_seconds = 0.05
    response = app.test_client().post(CHAT, headers=live, json={**HELLO, "stream": True}, buffered=False)
    next(iter(response.iter_encoded()))
    response.close()
    db.session.rollback()
    row = the_row()
    assert (row.code, row.ended_at is not None) == ("caller_hung_up", True)
    provider.wait_until_idle(5)


def test_a_response_closed_before_its_first_byte_is_settled_too(
    app: Flask, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.event_delay_seconds = 0.05
    app.test_client().post(CHAT, headers=live, json={**HELLO, "stream": True}, buffered=False).close()
    db.session.rollback()
    assert the_row().code == "caller_hung_up"


def test_callers_who_do_not_read_on_keep_no_stream_waiting(
    app: Flask, client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.event_delay_seconds = 0.02
    asked = {**HELLO, "stream": True}
    begun: list[TestResponse] = []
    whole: list[bytes] = []

    def call() -> None:
        with app.app_context():
            for _ in range(12):
                begun.append(app.test_client().post(CHAT, headers=live, json=asked, buffered=False))
                pieces = iter(begun[-1].iter_encoded())
                # The second one is read in turn.
                assert next(pieces)
                assert next(pieces)
            whole.append(client.post(CHAT, headers=live, json=asked).get_data())

    # In a thread of its own, because it could wait for ever.
    caller = Thread(target=call, daemon=True)
    caller.start()
    caller.join(20)
    assert [answer.endswith(b"data: [DONE]\n\n") for answer in whole] == [True]
    for response in begun:
        response.close()


@pytest.mark.parametrize("fault", ["truncated", "reset:300", "stall"])
def test_a_cut_stream_ends_with_an_error_event_and_no_done(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider, fault: str
) -> None:
    connect("openai", provider.good_key)
    provider.fault = fault
    response = client.post(CHAT, headers=live, json={**HELLO, "stream": True})
    assert response.status_code == 200
    body = response.get_data()
    assert b"[DONE]" not in body
    last = json.loads(body.strip().rsplit(b"\n\n", 1)[-1].strip().removeprefix(b"data: "))
    assert last["error"]["code"] == "provider_unreachable"
    assert last["error"]["request_id"] == response.headers["X-Request-Id"]
    assert the_row().code == "provider_unreachable"


def test_a_stream_whose_row_cannot_be_opened_is_503_and_frees_the_provider(
    app: Flask, live: dict[str, str], connect: Connect, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.errors import DatabaseAway
    from services.gateway import relay
    from services.metering import Meter

    # Held on to, so that it is not the garbage collector that closes it.
    replies: list[relay.Reply] = []
    true_answer = relay.answer

    def answer(*args: Any) -> relay.Reply:
        replies.append(true_answer(*args))
        return replies[-1]

    def away(*_args: object) -> None:
        raise DatabaseAway

    connect("openai", provider.good_key)
    provider.requests.clear()
    provider.fault = "stall"
    monkeypatch.setattr(relay, "answer", answer)
    monkeypatch.setattr(Meter, "open", away)
    monkeypatch.setattr(Meter, "record", lambda *_args: None)
    response = app.test_client().post(CHAT, headers=live, json={**HELLO, "stream": True})
    assert (response.status_code, error_of(response)["code"]) == (503, "service_unavailable")
    provider.wait_until_idle(5)
    assert provider.requests[0].outcome == "client gone"


def test_an_end_that_cannot_be_recorded_is_no_end(
    app: Flask, simulated: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.errors import DatabaseAway
    from services.metering import Meter

    def away(*_args: object) -> None:
        raise DatabaseAway

    monkeypatch.setattr(Meter, "settle", away)
    body = app.test_client().post(CHAT, headers=simulated, json={**HELLO, "stream": True}).get_data()
    assert b"[DONE]" not in body
    last = json.loads(body.strip().rsplit(b"\n\n", 1)[-1].strip().removeprefix(b"data: "))
    assert last["error"]["code"] == "service_unavailable"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("401", 502, "provider_rejected_key"),
        ("402", 402, "provider_out_of_credit"),
        ("429:7", 429, "provider_rate_limited"),
        ("400", 400, "provider_error"),
        ("404", 404, "provider_error"),
        ("403", 502, "provider_error"),
        ("500", 502, "provider_error"),
        ("502", 502, "provider_error"),
        ("503", 502, "provider_error"),
        ("garbage", 502, "provider_error"),
        ("redirect", 502, "provider_error"),
        ("reset", 503, "provider_unreachable"),
        ("reset:20", 503, "provider_unreachable"),
        ("hang", 503, "provider_unreachable"),
    ],
)
def test_a_provider_s_failure_comes_in_our_shape_without_its_key(
    client: FlaskClient,
    live: dict[str, str],
    connect: Connect,
    provider: FakeProvider,
    fault: str,
    status: int,
    code: str,
) -> None:
    connect("openai", provider.good_key)
    provider.fault = fault
    response = client.post(CHAT, headers=live, json=HELLO)
    error = error_of(response)
    assert (response.status_code, error["code"], error["type"]) == (status, code, "provider_error")
    assert "OpenAI" in error["message"]
    assert "WWW-Authenticate" not in response.headers
    for part in (provider.good_key, provider.good_key[:8], provider.good_key[-4:]):
        assert part not in response.get_data(as_text=True)
    row = the_row()
    assert (row.status, row.code, row.provider) == (status, code, "openai")
    if fault == "429:7":
        assert response.headers["Retry-After"] == "7"
    if code in ("provider_rejected_key", "provider_out_of_credit"):
        assert response.headers["x-should-retry"] == "false"


def test_a_stream_that_is_refused_is_an_ordinary_error(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.fault = "401"
    response = client.post(CHAT, headers=live, json={**HELLO, "stream": True})
    assert (response.status_code, error_of(response)["code"]) == (502, "provider_rejected_key")


def test_cookies_and_compression_of_the_provider_do_not_reach_the_caller(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.fault = "cookies"
    assert "Set-Cookie" not in client.post(CHAT, headers=live, json=HELLO).headers
    provider.fault = "gzip"
    response = client.post(CHAT, headers=live, json=HELLO)
    assert "Content-Encoding" not in response.headers
    assert response.get_json()["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("model", "connected", "reached", "as_model"),
    [
        ("gpt-4o", ["openai", "openrouter"], "openai", "gpt-4o"),
        ("anthropic/claude-3.5-sonnet", ["openai", "openrouter"], "openrouter", "anthropic/claude-3.5-sonnet"),
        ("openai/gpt-4o", ["openai", "openrouter"], "openai", "gpt-4o"),
        ("openai/gpt-4o", ["openrouter"], "openrouter", "openai/gpt-4o"),
    ],
)
def test_the_model_s_name_decides_the_provider(
    client: FlaskClient,
    live: dict[str, str],
    connect: Connect,
    provider: FakeProvider,
    model: str,
    connected: list[str],
    reached: str,
    as_model: str,
) -> None:
    for name in connected:
        connect(name, provider.good_key)
    provider.requests.clear()
    assert client.post(CHAT, headers=live, json={**HELLO, "model": model}).status_code == 200
    (received,) = provider.requests
    assert (received.flavour, received.json["model"]) == (reached, as_model)
    assert received.json["messages"] == HELLO["messages"]


def test_without_a_provider_key_the_answer_says_which_to_add(client: FlaskClient, live: dict[str, str]) -> None:
    response = client.post(CHAT, headers=live, json=HELLO)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "provider_not_connected")
    assert "Add a key of OpenAI" in error["message"]


def test_nothing_a_caller_sends_moves_the_request_to_another_host(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.requests.clear()
    places = dict.fromkeys(("api_base", "base_url", "api_url", "url", "host", "endpoint"), "http://127.0.0.1:9/v1")
    headers = {**live, "X-Forwarded-Host": "127.0.0.1:9", "X-Portkey-Custom-Host": "http://127.0.0.1:9"}
    assert client.post(CHAT, headers=headers, json={**HELLO, **places}).status_code == 200
    assert len(provider.requests) == 1


def test_a_provider_key_that_cannot_be_opened_is_503_and_said(
    client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
) -> None:
    from models import ProviderKey

    connect("openai", provider.good_key)
    row = db.session.query(ProviderKey).one()
    row.sealed = row.sealed[:-1] + ("A" if row.sealed[-1] != "A" else "B")
    db.session.commit()
    response = client.post(CHAT, headers=live, json=HELLO)
    assert (response.status_code, error_of(response)["code"]) == (503, "provider_key_unreadable")


def test_another_workspace_s_provider_key_is_never_used(
    client: FlaskClient, connect: Connect, provider: FakeProvider, mint: Mint, charlie: Person
) -> None:
    connect("openai", provider.good_key)
    secret = mint(environment="live", owner=charlie).secret
    response = client.post(CHAT, headers=bearer(secret), json=HELLO)
    assert (response.status_code, error_of(response)["code"]) == (400, "provider_not_connected")
