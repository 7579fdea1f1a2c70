"""What a check makes of what the provider answers, and how long it may take."""

from __future__ import annotations

import time

import pytest

from services import provider_check
from services.gateway.provider_answers import error_in, state_seen, without_key
from services.gateway.providers import Provider, provider_table
from services.gateway.upstream import Upstream
from services.provider_check import Finding
from services.secret import Secret
from tests.neighbours import provider_wire as wire
from tests.neighbours.fake_provider import FakeProvider

OPENAI, OPENROUTER, OWN = "openai", "openrouter", "own"


def check(provider: FakeProvider, name: str, key: str) -> Finding:
    table = provider_table(openai_base_url=provider.openai_base_url, openrouter_base_url=provider.openrouter_base_url)
    table[OWN] = Provider(OWN, "Our own", provider.openai_base_url, "/models", names_have_vendor=False)
    return provider_check.check(table[name], Secret(key), Upstream(connect_seconds=5, read_seconds=300))


def asked(provider: FakeProvider) -> list[str]:
    return [f"{request.method} {request.endpoint}" for request in provider.requests]


# ---- OpenAI


def test_openai_is_asked_with_one_small_call(provider: FakeProvider) -> None:
    assert check(provider, OPENAI, provider.good_key) == Finding("valid")
    assert asked(provider) == ["GET models", "POST chat/completions"]
    body = provider.requests[-1].json
    assert body["model"] == "gpt-4o-mini"
    assert body["max_completion_tokens"] == 16
    assert "max_tokens" not in body


def test_an_invalid_openai_key_costs_no_call(provider: FakeProvider) -> None:
    found = check(provider, OPENAI, "sk-proj-unknown-0123456789")
    assert found.state == "invalid"
    assert found.words is not None
    assert found.words.startswith("Incorrect API key provided: [key]")
    assert asked(provider) == ["GET models"]


def test_an_openai_account_without_credit_is_known_by_the_call(provider: FakeProvider) -> None:
    found = check(provider, OPENAI, provider.broke_key)
    assert found.state == "no_credit"
    assert found.words is not None
    assert found.words.startswith("You exceeded your current quota")


def test_an_openai_key_that_may_do_nothing_is_restricted(provider: FakeProvider) -> None:
    found = check(provider, OPENAI, provider.restricted_key)
    assert found.state == "restricted"
    assert found.words is not None
    assert "Missing scopes: model.request" in found.words


def test_an_openai_key_that_may_only_chat_works_although_its_list_is_refused_with_401(provider: FakeProvider) -> None:
    assert check(provider, OPENAI, provider.listless_key) == Finding("valid")


@pytest.mark.parametrize(
    ("models", "tried"),
    [
        ({"gpt-5-mini", "o3"}, ["gpt-5-mini"]),
        ({"o3"}, ["o3"]),
        ({"text-embedding-3-small"}, []),
        (set(), []),
    ],
)
def test_an_openai_key_for_some_models_is_tried_with_one_of_them(
    provider: FakeProvider, models: set[str], tried: list[str]
) -> None:
    provider.models_of[provider.good_key] = models
    assert check(provider, OPENAI, provider.good_key) == Finding("valid")
    assert [request.json["model"] for request in provider.requests if request.method == "POST"] == tried


def test_an_openai_key_that_can_neither_list_nor_use_a_usual_model_is_restricted(provider: FakeProvider) -> None:
    provider.models_of[provider.listless_key] = {"o3"}
    found = check(provider, OPENAI, provider.listless_key)
    assert (found.state, found.words) == (
        "restricted",
        "Project `proj_fake` does not have access to model `gpt-4o-mini`",
    )
    assert asked(provider) == ["GET models"] + 3 * ["POST chat/completions"]


# ---- OpenRouter


def test_openrouters_key_endpoint_tells_the_credit(provider: FakeProvider) -> None:
    assert check(provider, OPENROUTER, provider.openrouter_key) == Finding("valid", None, 8_750_000_000)
    assert asked(provider) == ["GET key"]


def test_an_openrouter_key_whose_limit_is_used_up_has_no_credit(provider: FakeProvider) -> None:
    found = check(provider, OPENROUTER, provider.broke_key)
    assert (found.state, found.credit_nano_usd) == ("no_credit", 0)
    provider.facts_of[provider.openrouter_key] = {"limit_remaining": -0.25}
    found = check(provider, OPENROUTER, provider.openrouter_key)
    assert (found.state, found.credit_nano_usd) == ("no_credit", -250_000_000)


def test_an_openrouter_key_without_a_limit_is_tried_with_a_call(provider: FakeProvider) -> None:
    assert check(provider, OPENROUTER, provider.unlimited_key) == Finding("valid")
    assert asked(provider) == ["GET key", "POST chat/completions"]
    provider.out_of_credit.add(provider.unlimited_key)
    assert check(provider, OPENROUTER, provider.unlimited_key).state == "no_credit"


def test_an_openrouter_account_that_never_paid_can_use_free_models(provider: FakeProvider) -> None:
    provider.facts_of[provider.unlimited_key] = {"is_free_tier": True}
    found = check(provider, OPENROUTER, provider.unlimited_key)
    assert found == Finding("valid", "This account has not bought credit: only free models answer.")


def test_an_openrouter_management_key_cannot_call_models(provider: FakeProvider) -> None:
    provider.facts_of[provider.openrouter_key] = {"is_management_key": True}
    assert check(provider, OPENROUTER, provider.openrouter_key).state == "restricted"


def test_an_invalid_openrouter_key_is_invalid(provider: FakeProvider) -> None:
    assert check(provider, OPENROUTER, "sk-or-v1-unknown") == Finding("invalid", "User not found.")


@pytest.mark.parametrize("left", [True, "10", [], 1e300, float("1e999")])
def test_a_credit_that_is_no_sum_of_money_is_not_taken_for_one(provider: FakeProvider, left: object) -> None:
    provider.facts_of[provider.openrouter_key] = {"limit_remaining": left}
    assert check(provider, OPENROUTER, provider.openrouter_key).credit_nano_usd is None


# ---- Any other


def test_a_declared_provider_is_asked_for_its_models(provider: FakeProvider) -> None:
    assert check(provider, OWN, provider.good_key) == Finding("valid")
    assert check(provider, OWN, "sk-unknown-0123456789").state == "invalid"
    assert asked(provider) == 2 * ["GET models"]


def test_a_declared_provider_without_a_list_leaves_the_key_unverified(provider: FakeProvider) -> None:
    provider.fault = "404"
    assert check(provider, OWN, provider.good_key).state == "unverified"


# ---- What goes wrong


@pytest.mark.parametrize("name", [OPENAI, OPENROUTER, OWN])
@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("401", "invalid"),
        ("402", "no_credit"),
        ("403", None),
        ("429", "rate_limited"),
        ("500", "unreachable"),
        ("502", "unreachable"),
        ("503", "unreachable"),
        ("reset", "unreachable"),
        ("reset:40", "unreachable"),
        ("redirect", "unreachable"),
    ],
)
def test_each_fault_has_its_state(provider: FakeProvider, name: str, fault: str, state: str | None) -> None:
    provider.fault = fault
    wanted = state or {OPENAI: "restricted", OPENROUTER: "no_credit", OWN: "restricted"}[name]
    found = check(provider, name, provider.good_key)
    assert found.state == wanted
    assert {request.headers["host"] for request in provider.requests} == {f"127.0.0.1:{provider.port}"}


@pytest.mark.parametrize("name", [OPENAI, OPENROUTER])
@pytest.mark.parametrize("fault", ["garbage", "truncated"])
def test_an_answer_that_makes_no_sense_proves_nothing(provider: FakeProvider, name: str, fault: str) -> None:
    provider.fault = fault
    assert check(provider, name, provider.good_key) == Finding("unreachable", "its answer made no sense")


def test_a_provider_that_is_away_is_unreachable(provider: FakeProvider) -> None:
    with provider.outage():
        assert check(provider, OPENAI, provider.good_key) == Finding("unreachable", "the connection failed")


@pytest.mark.parametrize("name", [OPENAI, OPENROUTER, OWN])
def test_a_check_is_over_in_time_whatever_the_provider_does(
    provider: FakeProvider, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_check, "SECONDS", 0.5)
    provider.fault = "hang"
    began = time.monotonic()
    assert check(provider, name, provider.good_key) == Finding("unreachable", "it did not answer in time")
    assert time.monotonic() - began < 2


def test_the_time_is_for_the_whole_check_and_not_for_each_request(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_check, "SECONDS", 0.8)
    provider.answer_delay_seconds = 0.5
    began = time.monotonic()
    assert check(provider, OPENAI, provider.good_key).state == "unreachable"
    assert time.monotonic() - began < 1.5
    assert provider_check.SECONDS == 0.8


def test_the_time_a_check_may_take_is_ten_seconds() -> None:
    assert provider_check.SECONDS == 10


# ---- Reading answers


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (wire.Answer(200), "valid"),
        (wire.wrong_key("openai", "sk-proj-0123456789"), "invalid"),
        (wire.wrong_key("openrouter", "sk-or-0123456789"), "invalid"),
        (wire.no_key("openrouter"), "invalid"),
        (wire.no_credit("openai"), "no_credit"),
        (wire.no_credit("openrouter"), "no_credit"),
        (wire.restricted("openai", "model.request"), "restricted"),
        (wire.restricted("openai", "model.request", status=401), "restricted"),
        (wire.restricted("openrouter", ""), "no_credit"),
        (wire.rate_limited("openai", "20"), "rate_limited"),
        (wire.rate_limited("openrouter", "20"), "rate_limited"),
        (wire.error_answer("openai", 429, "", kind="insufficient_quota", code="a new one"), "no_credit"),
        (wire.error_answer("openai", 429, "", kind="x", code="project_spend_limit_exceeded"), "no_credit"),
        (wire.error_answer("openrouter", 403, "Flagged", metadata={"reasons": ["violence"]}), None),
        (wire.model_not_allowed("gpt-5"), None),
        (wire.no_such_model("openai", "gpt-9"), None),
        (wire.no_model("openai"), None),
        (wire.broken_inside("openai"), None),
        (wire.bad_gateway(), None),
        (wire.Answer(403, b"<html>"), "restricted"),
        (wire.Answer(401, b"[1]"), "invalid"),
        (wire.Answer(401, b'{"error": "no"}'), "invalid"),
        (wire.Answer(401, b'{"error": {"message": 7, "code": [1], "type": {}}}'), "invalid"),
    ],
)  # fmt: skip
def test_an_answer_tells_the_state_of_the_key(answer: wire.Answer, state: str | None) -> None:
    assert state_seen(answer.status, error_in(answer.body)) == state


KEY = "sk-proj-Zq9Xw8Vr7Ut6Sp5On4Ml3Kj2Ih1Gf0Ed"


@pytest.mark.parametrize(
    "words",
    [
        KEY,
        f"({KEY})",
        f"key={KEY},",
        wire.masked(KEY),
        KEY[:20],
        KEY[20:],
        KEY[12:20],
        KEY[-4:],
        f"sk-...{KEY[-4:]}",
        "sk-another-key-0123456789",
    ],
)
def test_no_part_of_a_key_is_left_in_words(words: str) -> None:
    assert without_key(f"Wrong key: {words} was given", Secret(KEY)) == "Wrong key: [key] was given"


def test_words_without_the_key_stay_as_they_are_and_are_cut() -> None:
    said = "You exceeded your current quota, please check your plan at https://platform.openai.com/account."
    assert without_key(said, Secret(KEY)) == said
    assert without_key(said, Secret("")) == said
    assert len(without_key("word " * 10_000, Secret(KEY))) == 500
