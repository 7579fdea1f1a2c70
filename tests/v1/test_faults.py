"""What a provider's failures become: the documented answer, in bounded time, with one row of usage each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from extensions import db
from models import ProviderKey, UsageRecord
from services import keys
from services.errors import PortalError
from services.gateway import faults
from services.parts import parts
from services.secret import Secret
from tests.neighbours.fake_provider import FAULTS, FakeProvider
from tests.neighbours.processes import wait_until
from tests.people import bearer

Mint = Callable[..., keys.Minted]
Connect = Callable[[str, str], None]
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, you wide world!"}]}
BOTH: dict[str, Any] = {**HELLO, "model": "openai/gpt-4o"}
READ_SECONDS, TOTAL_SECONDS = 1.6, 3.5

# Status and code of a whole answer; status and code of a stream, whose failure may come in its last event.
Told = tuple[int, str | None]
REFUSED, LOST = (502, "provider_error"), (503, "provider_unreachable")
FINE: Told = (200, None)
EXPECTED: dict[str, tuple[Told, Told]] = {
    "hang": (LOST, LOST),
    "stall": (FINE, (200, "provider_unreachable")),
    "stall:0": (FINE, LOST),
    "slow": (FINE, FINE),
    "reset": (LOST, LOST),
    "reset:0": (LOST, LOST),
    # A byte of the size of the first chunk: nothing of the answer itself.
    "reset:1": (LOST, LOST),
    "reset:60": (LOST, (200, "provider_unreachable")),
    "reset:400": (LOST, (200, "provider_unreachable")),
    "400": ((400, "provider_error"), (400, "provider_error")),
    "401": ((502, "provider_rejected_key"), (502, "provider_rejected_key")),
    "402": ((402, "provider_out_of_credit"), (402, "provider_out_of_credit")),
    "403": (REFUSED, REFUSED),
    "404": ((404, "provider_error"), (404, "provider_error")),
    "429": ((429, "provider_rate_limited"), (429, "provider_rate_limited")),
    "500": (REFUSED, REFUSED),
    "502": (REFUSED, REFUSED),
    "503": (REFUSED, REFUSED),
    "garbage": (REFUSED, FINE),
    "truncated": (REFUSED, (200, "provider_unreachable")),
    "error-event": (FINE, (200, "provider_error")),
    "error-body": (REFUSED, FINE),
    "big-line": (FINE, FINE),
    "redirect": (REFUSED, REFUSED),
    "no-usage": (FINE, FINE),
    "no-stream-options": (FINE, FINE),
    "cookies": (FINE, FINE),
    "gzip": (FINE, FINE),
    "drip": (LOST, FINE),
    "hang-up": (FINE, FINE),
}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """Nothing here is another on another database."""
    return one_database_url


@pytest.fixture
def retries() -> int:
    return 0


@pytest.fixture
def breaker() -> int:
    """Failures until a breaker opens: never, in most tests."""
    return 1000


@pytest.fixture
def environment(environment: dict[str, str], retries: int, breaker: int) -> dict[str, str]:
    return environment | {
        "ARKA_PROVIDER_READ_SECONDS": str(READ_SECONDS),
        "ARKA_PROVIDER_TOTAL_SECONDS": str(TOTAL_SECONDS),
        "ARKA_PROVIDER_RETRIES": str(retries),
        "ARKA_BREAKER_FAILURES": str(breaker),
        "ARKA_BREAKER_SECONDS": "0.3",
    }


@pytest.fixture
def live(mint: Mint) -> dict[str, str]:
    return bearer(mint(environment="live").secret)


@pytest.fixture
def ask(client: FlaskClient, live: dict[str, str], provider: FakeProvider) -> Callable[..., TestResponse]:
    """Send a chat; what the provider received before is forgotten."""

    def ask(body: dict[str, Any] = HELLO, **more: Any) -> TestResponse:
        provider.requests.clear()
        return client.post(CHAT, headers=live, json={**body, **more})

    return ask


Ask = Callable[..., TestResponse]


def outcome(response: TestResponse) -> Told:
    """Status and error code of an answer; those of a stream's last event."""
    body = response.get_data()
    if response.content_type.startswith("text/event-stream"):
        if body.endswith(b"data: [DONE]\n\n"):
            return response.status_code, None
        assert b"[DONE]" not in body
        return response.status_code, json.loads(body.rsplit(b"data: ", 1)[-1])["error"]["code"]
    told = json.loads(body)
    return response.status_code, told["error"]["code"] if told.get("success") is False else None


def rows() -> list[UsageRecord]:
    return db.session.query(UsageRecord).order_by(UsageRecord.id).all()


def state_of(provider_name: str) -> str:
    return db.session.query(ProviderKey).filter_by(provider=provider_name).one().state


# ---- every fault


def test_the_table_of_this_test_knows_every_fault() -> None:
    assert {fault.partition(":")[0] for fault in EXPECTED} == set(FAULTS)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_every_fault_gets_its_documented_answer_in_time_and_one_row(
    ask: Ask, connect: Connect, provider: FakeProvider, stream: bool
) -> None:
    connect("openai", provider.good_key)
    found, slow, recorded = {}, [], []
    for fault in EXPECTED:
        provider.fault = fault
        began = time.monotonic()
        response = ask(stream=stream)
        found[fault] = outcome(response)
        if time.monotonic() - began > TOTAL_SECONDS + 2:
            slow.append(fault)
        recorded.append(response.headers["X-Request-Id"])
        for part in (provider.good_key, provider.good_key[:8], provider.good_key[-4:]):
            assert part.encode() not in response.get_data(), fault
    assert found == {fault: expected[stream] for fault, expected in EXPECTED.items()}
    assert slow == []
    kept = rows()
    assert [row.request_id for row in kept] == recorded
    assert [(row.status, row.code) for row in kept] == list(found.values())
    assert all(row.ended_at is not None and row.provider == "openai" for row in kept)


def test_what_a_provider_says_of_its_failure_comes_as_the_last_event(
    ask: Ask, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.fault = "error-event"
    response = ask(stream=True)
    body = response.get_data()
    # The provider's own event passed, and ours follows.
    assert body.count(b'"error":') == 2
    error = json.loads(body.rsplit(b"data: ", 1)[-1])["error"]
    assert error["message"] == "The provider said: Provider disconnected unexpectedly"
    assert error["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_reset_anywhere_in_an_answer_is_told_and_counted_once(
    ask: Ask, connect: Connect, provider: FakeProvider, stream: bool
) -> None:
    connect("openai", provider.good_key)
    # The seal of the end comes before the last bytes, so those may be missing unseen.
    length = len(ask(stream=stream).get_data())
    lost, broken = (503, "provider_unreachable"), (200, "provider_unreachable")
    allowed = {lost, broken} if stream else {lost}
    # A prime step meets every part of every kind of line; a call for each byte would take a minute.
    positions = range(0, length - 40, 19)
    for position in positions:
        provider.fault = f"reset:{position}"
        response = ask(stream=stream)
        assert outcome(response) in allowed, position
    assert len(rows()) == len(positions) + 1


def test_a_cut_inside_a_long_line_still_lets_the_last_event_stand_alone(
    ask: Ask, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    provider.fault = "reset:200000"
    # An echo of one line that is longer than what is held back.
    body = ask({**HELLO, "messages": [{"role": "user", "content": "x" * 300_000}]}, stream=True).get_data()
    assert len(body) > 64 * 1024
    assert json.loads(body.rsplit(b"\n\ndata: ", 1)[-1])["error"]["code"] == "provider_unreachable"


def test_an_answer_larger_than_anybody_wants_to_keep_is_refused(
    ask: Ask, connect: Connect, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.upstream.MOST_BYTES", 100_000)
    connect("openai", provider.good_key)
    provider.fault = "big-line:300000"
    response = ask()
    assert outcome(response) == (502, "provider_error")
    assert "too large" in response.get_json()["error"]["message"]


# ---- the next provider


MADE_GOOD = ["hang", "reset", "reset:100", "500", "503", "429:1", "401", "402", "403", "garbage", "truncated"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_next_provider_makes_good_what_happens_before_the_first_byte(
    ask: Ask, connect: Connect, provider: FakeProvider, stream: bool
) -> None:
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    # A stream that breaks off after its first byte cannot be made good.
    faults = [fault for fault in MADE_GOOD if not stream or fault not in ("reset:100", "garbage", "truncated")]
    for fault in faults:
        provider.faults_by_path = {"/v1/": fault}
        response = ask(BOTH, stream=stream)
        assert outcome(response) == FINE, fault
        assert [request.flavour for request in provider.requests] == ["openai", "openrouter"], fault
        assert [request.json["model"] for request in provider.requests] == ["gpt-4o", "openai/gpt-4o"]
        assert response.headers["X-Arka-Provider"] == "openrouter"
    assert {row.provider for row in rows()} == {"openrouter"}


def test_what_is_about_the_request_is_not_tried_elsewhere(ask: Ask, connect: Connect, provider: FakeProvider) -> None:
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    for fault in ("400", "404"):
        provider.fault = fault
        assert outcome(ask(BOTH)) == (int(fault), "provider_error")
        assert len(provider.requests) == 1


def test_after_the_first_byte_nothing_is_tried_again(ask: Ask, connect: Connect, provider: FakeProvider) -> None:
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    for fault in ("stall:1", "reset:400", "truncated"):
        provider.fault = fault
        assert outcome(ask(BOTH, stream=True)) == (200, "provider_unreachable"), fault
        assert len(provider.requests) == 1


@pytest.mark.parametrize(("fault", "seconds"), [("429:none", 5), ("429:0", 0), ("429:60", 60)])
def test_a_provider_s_limit_is_told_with_a_wait_also_when_the_provider_tells_none(
    ask: Ask, connect: Connect, provider: FakeProvider, fault: str, seconds: int
) -> None:
    connect("openai", provider.good_key)
    provider.fault = fault
    response = ask()
    assert outcome(response) == (429, "provider_rate_limited")
    assert response.headers["Retry-After"] == str(seconds)
    assert response.get_json()["error"]["retry_after"] == seconds


def test_when_all_fail_the_preferred_one_is_told_and_the_others_are_named(
    ask: Ask, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    provider.faults_by_path = {"/v1/": "429:60", "/api/v1/": "500"}
    response = ask(BOTH)
    assert outcome(response) == (429, "provider_rate_limited")
    assert response.headers["Retry-After"] == "60"
    assert response.get_json()["error"]["details"]["tried"] == [
        {"provider": "openai", "code": "provider_rate_limited"},
        {"provider": "openrouter", "code": "provider_error"},
    ]
    assert rows()[-1].provider == "openai"


def test_a_key_that_cannot_be_opened_does_not_keep_the_next_provider_from_answering(
    ask: Ask, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    connect("openrouter", provider.good_key)
    row = db.session.query(ProviderKey).filter_by(provider="openai").one()
    row.sealed = row.sealed[:-4] + "AAAA"
    db.session.commit()
    response = ask(BOTH)
    assert (outcome(response), response.headers["X-Arka-Provider"]) == (FINE, "openrouter")
    assert state_of("openai") == "cannot_decrypt"


# ---- another try


@pytest.mark.parametrize("retries", [1])
class TestAnotherTry:
    def test_a_single_provider_is_asked_once_more(self, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
        connect("openai", provider.good_key)
        for fault in ("500", "503", "reset", "reset:30", "429:1", "429:soon"):
            provider.faults = [fault]
            began = time.monotonic()
            assert outcome(ask()) == FINE, fault
            assert len(provider.requests) == 2
            assert time.monotonic() - began > (1 if fault == "429:1" else 0.4)

    def test_not_where_it_would_do_no_good(self, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
        """A refused key, no credit, a long wait, an answer that is none."""
        connect("openai", provider.good_key)
        for fault in ("401", "402", "403", "400", "404", "429:6", "redirect", "garbage", "big-line:1"):
            provider.fault = fault
            ask()
            assert len(provider.requests) == 1, fault

    def test_never_after_a_time_out_because_the_call_may_still_be_at_work(
        self, ask: Ask, connect: Connect, provider: FakeProvider
    ) -> None:
        connect("openai", provider.good_key)
        for fault in ("hang", "drip"):
            provider.fault = fault
            assert outcome(ask()) == LOST
            assert len(provider.requests) == 1

    def test_no_more_often_than_was_set(self, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
        connect("openai", provider.good_key)
        provider.fault = "500"
        assert outcome(ask()) == REFUSED
        assert len(provider.requests) == 2
        assert len(rows()) == 1

    def test_the_one_with_the_shortest_wait(self, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
        connect("openai", provider.good_key)
        connect("openrouter", provider.good_key)
        provider.faults = ["429:30", "503"]
        assert outcome(ask(BOTH)) == FINE
        assert [request.flavour for request in provider.requests] == ["openai", "openrouter", "openrouter"]


# ---- the breaker


@pytest.mark.parametrize("breaker", [3])
class TestBreaker:
    def test_a_failing_key_is_left_alone_until_one_call_has_tried(
        self, ask: Ask, connect: Connect, provider: FakeProvider
    ) -> None:
        connect("openai", provider.good_key)
        provider.fault = "500"
        for _ in range(3):
            assert outcome(ask()) == REFUSED
        response = ask()
        assert (outcome(response), len(provider.requests)) == (LOST, 0)
        assert int(response.headers["Retry-After"]) >= 1
        time.sleep(0.35)
        provider.fault = None
        assert outcome(ask()) == FINE
        assert parts().breakers.states() == {}

    def test_a_rate_limit_or_a_refusal_opens_nothing(self, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
        connect("openai", provider.good_key)
        for fault in ("429:60", "401", "404"):
            provider.fault = fault
            for _ in range(4):
                ask()
                assert len(provider.requests) == 1
        assert parts().breakers.states() == {}

    def test_the_next_provider_serves_meanwhile(self, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
        connect("openai", provider.good_key)
        connect("openrouter", provider.good_key)
        provider.faults_by_path = {"/v1/": "reset"}
        for _ in range(3):
            ask(BOTH)
        assert list(parts().breakers.states().values()) == ["open"]
        assert outcome(ask(BOTH)) == FINE
        assert [request.flavour for request in provider.requests] == ["openrouter"]


# ---- the state of the provider key


def test_the_state_of_the_key_follows_what_is_seen_and_heals(
    ask: Ask, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    seen = {}
    for fault in ("401", "402", "403", "429:60", "hang", "500", "404", None):
        provider.fault = fault
        ask()
        db.session.rollback()
        seen[fault] = state_of("openai")
    assert seen == {
        "401": "invalid",
        "402": "no_credit",
        "403": "restricted",
        "429:60": "rate_limited",
        "hang": "unreachable",
        # These say nothing of the key.
        "500": "unreachable",
        "404": "unreachable",
        None: "valid",
    }


def test_what_a_broken_stream_tells_holds_nothing_of_the_key(
    ask: Ask, connect: Connect, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = provider.good_key
    connect("openai", key)
    provider.fault = "error-event"
    broken = faults.broken_stream

    def quoting(_: dict[str, Any], own: Secret | None) -> PortalError:
        # As a provider would that tells what it was sent, whatever its keys look like.
        return broken({"message": f"Lost {key} and {key[-12:]} on the way"}, own)

    monkeypatch.setattr(faults, "broken_stream", quoting)
    told = json.loads(ask(stream=True).get_data().rsplit(b"data: ", 1)[-1])["error"]["message"]
    assert told == "The provider said: Lost [key] and [key] on the way"


@pytest.mark.parametrize("retries", [1])
def test_a_second_try_that_succeeds_leaves_the_key_valid(
    ask: Ask, connect: Connect, provider: FakeProvider, retries: int
) -> None:
    connect("openai", provider.good_key)
    provider.faults = ["reset"]
    assert outcome(ask()) == FINE
    assert state_of("openai") == "valid"


# ---- connections


def test_connections_are_kept_and_a_closed_one_costs_nobody_a_call(
    ask: Ask, connect: Connect, provider: FakeProvider
) -> None:
    connect("openai", provider.good_key)
    ask()
    made = provider.connections_made
    for _ in range(3):
        assert outcome(ask()) == FINE
        assert outcome(ask(stream=True)) == FINE
    assert provider.connections_made == made
    provider.fault = "hang-up"
    open_so_far = provider.connections_open
    assert outcome(ask()) == FINE
    # What is sent on a connection in the very moment of its end may have been carried out, and is not sent again.
    assert wait_until(lambda: provider.connections_open < open_so_far, 10)
    assert len(provider.requests) == 1
    provider.fault = None
    assert outcome(ask()) == FINE
    assert len(provider.requests) == 1


def test_a_refused_connection_is_told_as_one(app: Flask, ask: Ask, connect: Connect, provider: FakeProvider) -> None:
    connect("openai", provider.good_key)
    with provider.outage():
        response = ask()
    assert outcome(response) == LOST
    assert "the connection failed" in response.get_json()["error"]["message"]
