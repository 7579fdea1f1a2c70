"""The relayed endpoints beyond chat: usage, bytes and headers both ways, generate, declared providers."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import UsageRecord
from services import keys
from services.restrictions import Restrictions
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, bearer

Mint = Callable[..., keys.Minted]
Connect = Callable[[str, str], None]
CHAT = "/v1/chat/completions"
REQUESTS: dict[str, dict[str, Any]] = {
    "chat/completions": {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, you wide world!"}]},
    "completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello, you wide world!"},
    "embeddings": {"model": "text-embedding-3-small", "input": ["Hello, you", "wide world!"]},
    "responses": {"model": "gpt-4o", "input": "Hello, you wide world!"},
}
HELLO = REQUESTS["chat/completions"]
STREAMED = ["chat/completions", "completions", "responses"]


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """Nothing here is another on another database."""
    return one_database_url


@pytest.fixture
def live(mint: Mint) -> dict[str, str]:
    return bearer(mint(environment="live").secret)


@pytest.fixture
def simulated(mint: Mint) -> dict[str, str]:
    return bearer(mint().secret)


@pytest.fixture
def openai(connect: Connect, provider: FakeProvider) -> FakeProvider:
    """The provider, with OpenAI connected and nothing received yet."""
    connect("openai", provider.good_key)
    provider.requests.clear()
    return provider


def the_row() -> UsageRecord:
    return db.session.query(UsageRecord).one()


def last_row() -> UsageRecord:
    return db.session.query(UsageRecord).order_by(UsageRecord.id.desc()).first()  # type: ignore[return-value]


def error_of(response: TestResponse) -> dict[str, Any]:
    error: dict[str, Any] = response.get_json()["error"]
    return error


# ---- four endpoints


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_every_endpoint_is_relayed_and_its_usage_kept(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider, endpoint: str
) -> None:
    body = json.dumps(REQUESTS[endpoint] | {"field_of_next_year": [1.0, None]}, indent=1).encode()
    response = client.post(f"/v1/{endpoint}", headers=live, data=body, content_type="application/json")
    assert response.status_code == 200
    (received,) = openai.requests
    assert (received.endpoint, received.body) == (endpoint, body)
    usage = response.get_json()["usage"]
    row = the_row()
    written = usage.get("completion_tokens", usage.get("output_tokens", 0))
    assert (row.endpoint, row.input_tokens, row.output_tokens) == (
        endpoint,
        usage.get("prompt_tokens", usage.get("input_tokens")),
        written,
    )
    assert (row.model, row.provider, row.estimated) == (REQUESTS[endpoint]["model"], "openai", False)
    assert response.headers["X-Arka-Model"] == REQUESTS[endpoint]["model"]
    assert response.headers["X-Arka-Provider"] == "openai"
    assert "X-Arka-Route-Reason" not in response.headers


@pytest.mark.parametrize("endpoint", STREAMED)
def test_every_stream_is_metered_although_the_caller_did_not_ask(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider, endpoint: str
) -> None:
    asked = REQUESTS[endpoint] | {"stream": True}
    told = client.post(f"/v1/{endpoint}", headers=live, json=asked).get_data()
    assert b'"choices":[],"usage":{' not in told
    row = the_row()
    assert (row.streamed, row.estimated, row.code) == (True, False, None)
    # What the fake provider counts: words in, "You said:" and the words out.
    assert (row.input_tokens, row.output_tokens, row.cached_input_tokens) == (4, 6, 0)


@pytest.mark.parametrize("endpoint", STREAMED)
def test_without_a_report_the_tokens_are_estimated_and_marked(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider, endpoint: str
) -> None:
    openai.fault = "no-usage"
    for stream in (False, True):
        client.post(f"/v1/{endpoint}", headers=live, json=REQUESTS[endpoint] | {"stream": stream}).get_data()
        row = last_row()
        # 22 bytes in, "You said: " and the same out.
        assert (row.streamed, row.estimated, row.input_tokens, row.output_tokens) == (stream, True, 6, 8)


def test_a_caller_who_hangs_up_pays_for_what_was_seen(app: Flask, live: dict[str, str], openai: FakeProvider) -> None:
    openai.event_delay_seconds = 0.05
    response = app.test_client().post(CHAT, headers=live, json=HELLO | {"stream": True}, buffered=False)
    chunks = iter(response.iter_encoded())
    for _ in range(3):
        next(chunks)
    response.close()
    db.session.rollback()
    row = the_row()
    assert (row.code, row.estimated, row.input_tokens) == ("caller_hung_up", True, 6)
    assert 1 <= (row.output_tokens or 0) < 8
    openai.wait_until_idle(5)


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_test_keys_are_answered_by_the_simulator_on_every_endpoint(
    client: FlaskClient, simulated: dict[str, str], provider: FakeProvider, endpoint: str
) -> None:
    response = client.post(f"/v1/{endpoint}", headers=simulated, json=REQUESTS[endpoint])
    assert (response.status_code, response.headers["X-Arka-Provider"]) == (200, "simulator")
    assert the_row().input_tokens == response.get_json()["usage"].get(
        "prompt_tokens", response.get_json()["usage"].get("input_tokens")
    )
    assert provider.requests == []


@pytest.mark.parametrize("endpoint", [*REQUESTS, "generate"])
def test_every_endpoint_refuses_a_body_beyond_the_limit_and_one_that_makes_no_sense(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider, endpoint: str
) -> None:
    path = f"/v1/{endpoint}"
    large = client.post(path, headers=live, data=b" " * 10_000_001, content_type="application/json")
    assert (large.status_code, error_of(large)["code"]) == (413, "request_too_large")
    chunked = client.post(
        path,
        headers=live,
        data=b" " * 10_000_001,
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True},
    )
    assert (chunked.status_code, error_of(chunked)["code"]) == (413, "request_too_large")
    for body in (b"", b"[]", b"{", b'{"model": NaN}'):
        response = client.post(path, headers=live, data=body, content_type="application/json")
        assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")
    for model in ("", 7, ["gpt-4o"]):
        response = client.post(path, headers=live, json=REQUESTS.get(endpoint, {"prompt": "x"}) | {"model": model})
        assert (response.status_code, error_of(response)["param"]) == (400, "model")
    assert openai.requests == []


def test_a_response_in_the_background_is_refused(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider
) -> None:
    response = client.post("/v1/responses", headers=live, json=REQUESTS["responses"] | {"background": True})
    assert (response.status_code, error_of(response)["param"]) == (400, "background")
    assert openai.requests == []


# ---- bytes


class Recorder:
    """A provider that answers every request with the given bytes, cut as given, and keeps what it was sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.pieces: list[bytes] = []
        self.received: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < _length(request):
                    request += connection.recv(65536)
                self.received.append(request)
                for piece in self.pieces:
                    connection.sendall(piece)

    def answer_with(self, content: bytes, cuts: list[int]) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        places = [0, *cuts, len(content)]
        chunks = [content[a:b] for a, b in itertools.pairwise(places) if a < b]
        self.pieces = [head, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]

    def close(self) -> None:
        self._listener.close()


def _length(request: bytes) -> int:
    for line in request.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


STREAM = (
    b": hello\n\n"
    b'data: {"id":"1","choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"}}],"usage":null}\r\n\r\n'
    b"event: odd\nid: 7\nretry: 10\ndata: not json\n\n"
    b'data:{"id":"1","choices":[{"delta":{"content":" "}}]}\n\n'
)
REPORT = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


class TestBytes:
    @pytest.fixture
    def environment(self, environment: dict[str, str], recorder: Recorder, tmp_path: Path) -> dict[str, str]:
        file = tmp_path / "providers.toml"
        file.write_text(f'[[provider]]\nname = "raw"\nbase_url = "{recorder.url}"\nneeds_key = false\nmodels = ["m"]\n')
        return environment | {"ARKA_PROVIDERS_FILE": str(file)}

    def test_a_stream_comes_through_byte_for_byte_without_the_report_we_asked_for(
        self, client: FlaskClient, live: dict[str, str], recorder: Recorder
    ) -> None:
        whole = STREAM + REPORT + DONE
        asked = {"model": "m", "messages": [], "stream": True}
        for cuts in ([], [1], [10, 11, 12], list(range(0, len(whole), 7)), [len(STREAM) + 5], [len(whole) - 1]):
            recorder.answer_with(whole, cuts)
            assert client.post(CHAT, headers=live, json=asked).get_data() == STREAM + DONE
            assert (last_row().input_tokens, last_row().output_tokens) == (3, 4)
        for options in ({"include_usage": True}, {}, None):
            recorder.answer_with(whole, [50])
            told = client.post(CHAT, headers=live, json=asked | {"stream_options": options}).get_data()
            assert told == whole

    def test_the_request_goes_out_byte_for_byte_with_one_field_more(
        self, client: FlaskClient, live: dict[str, str], recorder: Recorder
    ) -> None:
        recorder.answer_with(STREAM + REPORT + DONE, [])
        body = b' {"model" : "raw/m", "big": 12345678901234567890.0, "stream":true,\n "e": "\\u00e9"}'
        client.post(CHAT, headers=live, data=body, content_type="application/json").get_data()
        head, sent = recorder.received[0].split(b"\r\n\r\n", 1)
        wanted = body.replace(b'"raw/m"', b'"m"')
        assert sent == b' {"stream_options":{"include_usage":true},' + wanted[2:]
        # A server that needs no key gets none, neither its own nor the caller's.
        assert b"authorization" not in head.lower()

    def test_an_answer_of_a_provider_that_is_no_page_of_ours_is_not_called_one(
        self, client: FlaskClient, live: dict[str, str], recorder: Recorder
    ) -> None:
        body = b'{"choices": [], "usage": {}}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)
        recorder.pieces = [head + body]
        response = client.post(CHAT, headers=live, json={"model": "m", "messages": []})
        assert (response.content_type, response.get_data()) == ("application/json", body)

    def test_an_answer_that_ends_before_its_length_is_not_taken_for_whole(
        self, client: FlaskClient, live: dict[str, str], recorder: Recorder
    ) -> None:
        recorder.pieces = [
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n",
            b'{"choices": [], "usage": {}}',
        ]
        response = client.post(CHAT, headers=live, json={"model": "m", "messages": []})
        assert (response.status_code, error_of(response)["code"]) == (503, "provider_unreachable")


def test_usage_is_not_asked_of_who_tells_it_anyway_or_does_not_know_how(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider, connect: Connect
) -> None:
    connect("openrouter", openai.good_key)
    openai.requests.clear()
    asked = HELLO | {"model": "anthropic/claude-3.5-sonnet", "stream": True}
    body = json.dumps(asked).encode()
    told = client.post(CHAT, headers=live, data=body, content_type="application/json").get_data()
    assert openai.requests[0].body == body
    assert b'"usage":{' in told, "it is a part of what OpenRouter says"
    assert last_row().output_tokens == 6
    openai.fault = "no-stream-options"
    openai.requests.clear()
    assert client.post(CHAT, headers=live, json=HELLO | {"stream": True}).get_data().endswith(DONE)
    assert ["stream_options" in request.json for request in openai.requests] == [True, False]
    openai.requests.clear()
    refused = client.post(CHAT, headers=live, json=HELLO | {"stream": True, "stream_options": {"x": 1}})
    assert (refused.status_code, len(openai.requests)) == (400, 1)


# ---- headers


def test_only_named_headers_reach_the_provider(client: FlaskClient, live: dict[str, str], openai: FakeProvider) -> None:
    passed = {"OpenAI-Beta": "assistants=v2", "HTTP-Referer": "https://example.com", "X-Title": "My app"}
    others = {
        "Cookie": "portal=canary",
        "X-Canary": "canary",
        "OpenAI-Organization": "canary",
        "TE": "trailers",
        "Proxy-Authorization": "canary",
        "X-Forwarded-For": "198.51.100.1",
        "Accept-Encoding": "gzip, br",
        "User-Agent": "canary",
    }
    assert client.post(CHAT, headers={**live, **passed, **others}, json=HELLO).status_code == 200
    (received,) = openai.requests
    assert set(received.headers) == {
        "host", "user-agent", "accept-encoding", "authorization", "content-type", "content-length",
        "openai-beta", "http-referer", "x-title",
    }  # fmt: skip
    assert {name: received.headers[name.lower()] for name in passed} == passed
    assert "canary" not in str(received.headers)
    assert received.headers["accept-encoding"] == "identity"


def test_a_header_that_is_no_plain_text_is_left_out(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider
) -> None:
    for value in ("x" * 301, "Caf\xe9", "a\tb"):
        openai.requests.clear()
        response = client.post(CHAT, headers={**live, "X-Title": value}, json=HELLO)
        assert response.status_code == 200
        assert "x-title" not in openai.requests[0].headers


def test_of_the_provider_s_headers_only_named_ones_reach_the_caller(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider
) -> None:
    openai.fault = "cookies"
    for stream in (False, True):
        headers = client.post(CHAT, headers=live, json=HELLO | {"stream": stream}).headers
        assert headers["openai-processing-ms"] == "12"
        for name in ("Set-Cookie", "openai-organization", "CF-RAY", "x-ratelimit-limit-requests", "Server"):
            assert headers.get(name) in (None, "1000")
        assert headers["X-Request-Id"].startswith("req_")


def test_a_zipped_answer_is_unpacked(client: FlaskClient, live: dict[str, str], openai: FakeProvider) -> None:
    openai.fault = "gzip"
    whole = client.post(CHAT, headers=live, json=HELLO)
    assert whole.get_json()["object"] == "chat.completion"
    streamed = client.post(CHAT, headers=live, json=HELLO | {"stream": True})
    assert streamed.get_data().endswith(DONE)
    assert "Content-Encoding" not in streamed.headers
    assert last_row().output_tokens == 6


def test_a_made_up_model_s_name_is_shown_as_a_header_can(client: FlaskClient, simulated: dict[str, str]) -> None:
    response = client.post(CHAT, headers=simulated, json=HELLO | {"model": "é\r\nX-Evil: 1"})
    assert response.headers["X-Arka-Model"] == "???X-Evil: 1"
    assert "X-Evil" not in response.headers


# ---- ARKAbrain


@pytest.mark.parametrize("stream", [False, True])
def test_arkabrain_chooses_and_says_why(
    client: FlaskClient, live: dict[str, str], openai: FakeProvider, stream: bool
) -> None:
    response = client.post(CHAT, headers=live, json=HELLO | {"model": "arkabrain", "stream": stream})
    assert response.status_code == 200
    response.get_data()
    (received,) = openai.requests
    row = the_row()
    assert row.requested_model == "arkabrain"
    assert row.model == response.headers["X-Arka-Model"] == received.json["model"]
    assert row.route_reason == response.headers["X-Arka-Route-Reason"]
    assert row.model != "arkabrain"


def test_arkabrain_without_any_provider_says_which_to_add(client: FlaskClient, live: dict[str, str]) -> None:
    response = client.post(CHAT, headers=live, json=HELLO | {"model": "auto"})
    assert (response.status_code, error_of(response)["code"]) == (400, "provider_not_connected")


def test_arkabrain_answers_test_keys_too(client: FlaskClient, simulated: dict[str, str]) -> None:
    response = client.post(CHAT, headers=simulated, json=HELLO | {"model": "AUTO"})
    assert response.get_json()["model"] == response.headers["X-Arka-Model"] == the_row().model
    assert (the_row().requested_model, response.headers["X-Arka-Provider"]) == ("AUTO", "simulator")


# ---- POST /v1/generate


def test_generate_answers_a_prompt_with_a_text(client: FlaskClient, live: dict[str, str], openai: FakeProvider) -> None:
    response = client.post("/v1/generate", headers=live, json={"prompt": "Hello!", "max_tokens": 9, "top_p": 0.5})
    told = response.get_json()
    assert set(told) == {"success", "text", "model", "usage", "id"}
    assert (told["success"], told["text"], told["id"][:9]) == (True, "You said: Hello!", "chatcmpl-")
    (received,) = openai.requests
    assert received.json == {
        "model": told["model"],
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 9,
        "top_p": 0.5,
    }
    row = the_row()
    assert (row.endpoint, row.requested_model, row.model) == ("generate", "arkabrain", told["model"])
    assert told["usage"] == {
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "total_tokens": 4,
        "estimated": False,
    }


def test_generate_works_with_test_keys_and_a_model_of_one_s_own(client: FlaskClient, simulated: dict[str, str]) -> None:
    told = client.post("/v1/generate", headers=simulated, json={"prompt": "Hello!", "model": "gpt-4o"}).get_json()
    assert told["model"] == "gpt-4o"
    assert "Hello!" in told["text"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "model": None}, "model"),
        ({"prompt": "x", "stream": True}, "stream"),
        ({"prompt": "x", "messages": [{}]}, "messages"),
    ],
)
def test_generate_refuses_what_makes_no_sense_and_says_where(
    client: FlaskClient, simulated: dict[str, str], body: dict[str, Any], param: str
) -> None:
    response = client.post("/v1/generate", headers=simulated, json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_a_restricted_key_gets_no_other_model_by_naming_two(
    client: FlaskClient, mint: Mint, alice: Person, openai: FakeProvider
) -> None:
    """A provider may read the first of two fields of one name, where we read the last."""
    minted = mint(environment="live")
    limits = Restrictions(models=("gpt-4o-mini",))
    keys.change(alice.workspace, minted.key.id, actor=alice.actor, name="mini", restrictions=limits)
    body = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "model": "gpt-4o-mini"}'
    headers = {**bearer(minted.secret), "Content-Type": "application/json"}
    assert client.post(CHAT, data=body, headers=headers).status_code == 200
    sent = openai.requests[-1].body
    assert sent.count(b'"model"') == 1
    assert json.loads(sent)["model"] == "gpt-4o-mini"


def test_a_key_restricted_to_models_cannot_generate_with_another(
    app: Flask, client: FlaskClient, mint: Mint, openai: FakeProvider
) -> None:
    minted = mint(environment="live")
    minted.key.allowed_models = ["gpt-4o"]
    db.session.commit()
    refused = client.post("/v1/generate", headers=bearer(minted.secret), json={"prompt": "x"})
    assert (refused.status_code, error_of(refused)["code"]) == (403, "model_not_allowed")
    allowed = client.post("/v1/generate", headers=bearer(minted.secret), json={"prompt": "x", "model": "gpt-4o"})
    assert allowed.status_code == 200


# ---- declared providers


class TestDeclared:
    @pytest.fixture
    def environment(self, environment: dict[str, str], provider: FakeProvider, tmp_path: Path) -> dict[str, str]:
        file = tmp_path / "providers.toml"
        file.write_text(
            f'[[provider]]\nname = "keyed"\ntitle = "House server"\nbase_url = "{provider.openai_base_url}"\n'
            'models = ["llama3"]\nusage_on_streams = false\n'
            # The list of OpenRouter's models is the one that needs no key.
            f'[[provider]]\nname = "free"\nbase_url = "{provider.openrouter_base_url}"\nneeds_key = false\n'
        )
        return environment | {"ARKA_PROVIDERS_FILE": str(file)}

    def test_a_declared_server_is_connected_and_called_like_any_other(
        self, client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
    ) -> None:
        missing = client.post(CHAT, headers=live, json=HELLO | {"model": "keyed/x"})
        assert error_of(missing)["code"] == "provider_not_connected"
        assert "Add a key of House server" in error_of(missing)["message"]
        connect("keyed", provider.good_key)
        for model, there in (("llama3", "llama3"), ("keyed/mistral:7b", "mistral:7b")):
            provider.requests.clear()
            response = client.post(CHAT, headers=live, json=HELLO | {"model": model, "stream": True})
            assert response.get_data().endswith(DONE)
            (received,) = provider.requests
            assert (received.key, received.json["model"]) == (provider.good_key, there)
            assert "stream_options" not in received.json
            assert response.headers["X-Arka-Provider"] == last_row().provider == "keyed"
            assert last_row().estimated

    def test_its_models_are_listed_as_they_are_to_be_asked_for(
        self, client: FlaskClient, live: dict[str, str], connect: Connect, provider: FakeProvider
    ) -> None:
        listed = client.get("/v1/models", headers=live).get_json()["data"]
        assert {model["provider"] for model in listed} == {"free"}
        assert "free/openai/gpt-4o" in {model["id"] for model in listed}
        connect("keyed", provider.good_key)
        listed = client.get("/v1/models", headers=live).get_json()["data"]
        of_keyed = {model["id"] for model in listed if model["provider"] == "keyed"}
        assert {"llama3", "keyed/gpt-4o"} <= of_keyed
        assert client.get("/v1/models/free/openai/gpt-4o", headers=live).status_code == 200
