"""The small parts of the gateway: bodies, estimates, routing, breakers, declared providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from services.errors import InvalidRequest
from services.gateway import bodies, estimate, faults
from services.gateway.breaker import Breakers
from services.gateway.endpoints import ENDPOINTS
from services.gateway.providers import Provider, provider_table
from services.gateway.routing import routes

CHAT, RESPONSES = ENDPOINTS["chat/completions"], ENDPOINTS["responses"]
COMPLETIONS, EMBEDDINGS = ENDPOINTS["completions"], ENDPOINTS["embeddings"]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# ---- bodies


@given(st.dictionaries(st.text(), json_values, max_size=4), st.text(min_size=1), st.text(min_size=1), st.booleans())
def test_another_model_changes_nothing_else(rest: dict[str, Any], model: str, other: str, ascii_only: bool) -> None:
    request = {**rest, "model": model, "nested": {"model": model}}
    body = json.dumps(request, ensure_ascii=ascii_only, indent=1).encode("utf-8", "surrogatepass")
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    assert orjson.loads(bodies.with_model(body, read, other)) == read | {"model": other}


def test_only_the_name_of_the_model_is_exchanged() -> None:
    body = b'{ "a": 1.0,\n "model" : "openai/gpt-4o", "big": 12345678901234567890123, "n": 1e2 }'
    changed = bodies.with_model(body, orjson.loads(body), "gpt-4o")
    assert changed == body.replace(b'"openai/gpt-4o"', b'"gpt-4o"')
    assert bodies.with_model(body, orjson.loads(body), "openai/gpt-4o") is body


@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=4), st.sampled_from(["", " ", "\n\t"]))
def test_asking_for_usage_adds_one_field_and_changes_no_byte(request: dict[str, Any], space: str) -> None:
    body = (space + json.dumps(request)).encode()
    asking = bodies.asking_for_usage(body)
    added = b'"stream_options":{"include_usage":true},'
    assert asking.replace(added, b"", 1) == body
    assert json.loads(asking) == {"stream_options": {"include_usage": True}, **json.loads(body)}


# ---- estimates


def test_four_bytes_are_a_token() -> None:
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 400}]}
    assert estimate.input_tokens(CHAT, asked) == 100
    assert estimate.input_tokens(RESPONSES, {"input": "x" * 9, "instructions": "yyy"}) == 3
    assert estimate.input_tokens(COMPLETIONS, {"prompt": "x" * 8}) == 2
    assert estimate.input_tokens(EMBEDDINGS, {"input": ["xxxx", "yyyy"]}) == 2
    assert (estimate.tokens(0), estimate.tokens(1), estimate.tokens(5)) == (0, 1, 2)


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_a_picture_counts_by_itself_and_not_by_its_bytes() -> None:
    inline = picture("data:image/png;base64," + "A" * 1_000_000)
    asked = {"messages": [{"role": "user", "content": [{"type": "text", "text": "xxxx"}, inline]}]}
    body = json.dumps(asked).encode()
    assert estimate.input_tokens(CHAT, asked) == 1_001
    assert 3_000 < estimate.most_input_tokens(CHAT, asked, body) < 3_300
    linked = {"messages": [{"role": "user", "content": [picture("https://example.com/a.png")] * 2}]}
    assert estimate.most_input_tokens(CHAT, linked, b"...image...") == 6_000 + len(b"...image...")


def test_a_text_that_looks_like_a_picture_is_counted_as_text() -> None:
    asked = {"messages": [{"role": "user", "content": "data:image/png;base64," + "A" * 10_000}]}
    body = json.dumps(asked).encode()
    assert estimate.most_input_tokens(CHAT, asked, body) == len(body)


@given(
    st.dictionaries(st.sampled_from(["messages", "input", "prompt", "tools", "n", "max_tokens", "type"]), json_values)
)
def test_no_request_is_too_odd_to_be_bounded(asked: dict[str, Any]) -> None:
    for endpoint in ENDPOINTS.values():
        assert estimate.input_tokens(endpoint, asked) >= 0
        assert estimate.most_input_tokens(endpoint, asked, b"image") >= 0
        estimate.most_output_tokens(endpoint, asked)


def test_what_the_provider_remembers_is_counted_too() -> None:
    asked = {"input": "x", "previous_response_id": "resp_1"}
    assert estimate.most_input_tokens(RESPONSES, asked, b"{}") > 100_000


@pytest.mark.parametrize(
    ("endpoint", "asked", "most"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 10}, 10),
        (CHAT, {"max_completion_tokens": 20, "max_tokens": 10}, 20),
        (CHAT, {"max_tokens": 10, "n": 3}, 30),
        (CHAT, {"max_tokens": 10, "n": None}, 10),
        (CHAT, {"max_tokens": 10, "n": "3"}, None),
        (CHAT, {"max_tokens": True}, None),
        (CHAT, {"max_tokens": -1}, None),
        (CHAT, {"max_tokens": 1.5}, None),
        (RESPONSES, {"max_output_tokens": 7}, 7),
        (COMPLETIONS, {"max_tokens": 5, "prompt": ["a", "b"], "best_of": 2}, 20),
        (COMPLETIONS, {"max_tokens": 5, "prompt": [[1, 2], [3]]}, 10),
        (COMPLETIONS, {"max_tokens": 5, "prompt": [1, 2, 3]}, 5),
        (EMBEDDINGS, {"max_tokens": 5}, 0),
    ],
)
def test_the_most_output_is_what_the_request_allows(endpoint: Any, asked: dict[str, Any], most: int | None) -> None:
    assert estimate.most_output_tokens(endpoint, asked) == most


@pytest.mark.parametrize(
    ("report", "counts"),
    [
        (None, (None, None, None)),
        ([], (None, None, None)),
        ({"prompt_tokens": 1, "completion_tokens": 2}, (1, None, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 4, 2)),
        ({"prompt_tokens": True, "completion_tokens": -2, "prompt_tokens_details": 5}, (None, None, None)),
        ({"prompt_tokens": 2**31, "completion_tokens": "2"}, (None, None, None)),
    ],
)
def test_only_counts_are_taken_for_counts(report: Any, counts: tuple[int | None, ...]) -> None:
    assert CHAT.usage_of(report) == counts


def test_embeddings_write_nothing() -> None:
    assert EMBEDDINGS.usage_of({"prompt_tokens": 3, "total_tokens": 3}) == (3, None, 0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), (" 7 ", 7), ("²", None), ("-1", None), ("9" * 5000, None), ("soon", None), (None, None), ("", None)],
)
def test_a_retry_after_is_read_if_it_is_one(header: str | None, seconds: int | None) -> None:
    assert faults.seconds_of(header) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    assert faults.seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (faults.seconds_of("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 1_000_000


# ---- breakers


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_lets_one_try_and_closes() -> None:
    clock = Clock()
    breakers = Breakers(failures=3, pause_seconds=10, trial_seconds=10, clock=clock)
    for _ in range(2):
        breakers.failed("a")
    breakers.succeeded("a")
    for _ in range(2):
        breakers.failed("a")
    assert (breakers.refused_for("a"), breakers.states()) == (0, {})
    breakers.failed("a")
    assert (breakers.refused_for("a"), breakers.refused_for("b"), breakers.states()) == (10, 0, {"a": "open"})
    clock.now += 9.5
    # A failure that comes in late makes the pause no longer.
    breakers.failed("a")
    assert breakers.refused_for("a") == 1
    clock.now += 0.5
    assert breakers.refused_for("a", trial=False) == 0
    assert breakers.states() == {"a": "half_open"}
    assert breakers.refused_for("a") == 0, "the one trial"
    assert breakers.refused_for("a") == 10, "everybody else"
    breakers.failed("a")
    assert breakers.refused_for("a") == 10
    clock.now += 10
    assert breakers.refused_for("a") == 0
    breakers.succeeded("a")
    assert (breakers.refused_for("a"), breakers.states()) == (0, {})


def test_a_trial_that_is_never_heard_of_again_is_followed_by_another() -> None:
    clock = Clock()
    breakers = Breakers(failures=1, pause_seconds=10, trial_seconds=20, clock=clock)
    breakers.failed("a")
    clock.now += 10
    assert (breakers.refused_for("a"), breakers.refused_for("a")) == (0, 20)
    clock.now += 20
    assert (breakers.refused_for("a"), breakers.refused_for("a")) == (0, 20)


# ---- routing


LOCAL = Provider("local", "Local", "http://l/v1", declared=True, needs_key=False, models=frozenset({"llama3", "a/b"}))
OTHER = Provider("other", "Other", "http://o/v1", declared=True, models=frozenset({"llama3", "gpt-4o"}))
TABLE = provider_table(openai_base_url="http://x/v1", openrouter_base_url="http://y/v1", declared=(LOCAL, OTHER))


@pytest.mark.parametrize(
    ("model", "connected", "found"),
    [
        ("gpt-4o", {"openai"}, [("openai", "gpt-4o")]),
        ("gpt-4o", {"openai", "other"}, [("other", "gpt-4o")]),
        ("openai/gpt-4o", {"openai", "openrouter", "local"}, [("openai", "gpt-4o"), ("openrouter", "openai/gpt-4o")]),
        ("anthropic/claude", {"openai", "openrouter", "local"}, [("openrouter", "anthropic/claude")]),
        ("llama3", {"local", "other", "openai"}, [("local", "llama3"), ("other", "llama3")]),
        ("a/b", {"local", "openrouter"}, [("local", "a/b")]),
        ("local/qwen:7b", {"local", "openrouter"}, [("local", "qwen:7b")]),
        ("local/meta/llama", {"local"}, [("local", "meta/llama")]),
        ("other/x", {"openrouter", "openai"}, []),
        ("local/", {"local"}, []),
        ("/x", {"openai", "local"}, []),
    ],
)
def test_the_name_of_a_model_tells_who_serves_it(model: str, connected: set[str], found: list[tuple[str, str]]) -> None:
    if found:
        assert [(route.provider.name, route.model) for route in routes(model, connected, TABLE)] == found
    else:
        with pytest.raises(InvalidRequest) as caught:
            routes(model, connected, TABLE)
        assert caught.value.code == "provider_not_connected"


# ---- declared providers


def declared(tmp_path: Path, text: str) -> config.Settings:
    file = tmp_path / "providers.toml"
    file.write_text(text)
    return config.load({"ARKA_INSTANCE_PATH": str(tmp_path / "instance"), "ARKA_PROVIDERS_FILE": str(file)})


def test_the_documented_example_can_be_declared(tmp_path: Path) -> None:
    documented = (config.ROOT / "docs" / "providers.md").read_text()
    example = "\n".join(line[4:] for line in documented.splitlines() if line.startswith("    "))
    found = declared(tmp_path, example).declared_providers
    assert found is not None
    assert [(row.name, row.needs_key, row.declared) for row in found] == [
        ("ollama", False, True),
        ("mistral", True, True),
    ]
    assert found[0].models == {"llama3.2", "qwen3:8b"}
    assert found[1].keys_url == "https://console.mistral.ai/api-keys"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[provider", "is not valid TOML"),
        ("x = 1", "must hold tables [[provider]] and nothing else"),
        ("provider = 1", "must hold tables"),
        ('[[provider]]\nbase_url = "http://a"', "needs a name"),
        ('[[provider]]\nname = "A b"\nbase_url = "http://a"', "needs a name of up to 40"),
        ('[[provider]]\nname = "openai"\nbase_url = "http://a"', "has a name that is taken"),
        ('[[provider]]\nname = "a"', "has a base_url that must be an http or https address"),
        ('[[provider]]\nname = "a"\nbase_url = "ftp://a"', "has a base_url that must be an http or https address"),
        ('[[provider]]\nname = "a"\nbase_url = "http://u:p@a"', "without user"),
        ('[[provider]]\nname = "a"\nbase_url = "http://a"\nmodel = "x"', "has a field “model” that means nothing"),
        ('[[provider]]\nname = "a"\nbase_url = "http://a"\nmodels = "x"', "needs models to be a list"),
        ('[[provider]]\nname = "a"\nbase_url = "http://a"\nneeds_key = 1', "needs needs_key to be true or false"),
        ('[[provider]]\nname = "a"\nbase_url = "http://a"\ntitle = 7', "needs a title"),
        ('[[provider]]\nname = "a"\nbase_url = "http://a"\n' * 2, "has the name of an earlier one"),
    ],
)
def test_a_declaration_with_a_fault_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(config.ConfigurationError) as caught:
        declared(tmp_path, text)
    assert caught.value.message.startswith("ARKA_PROVIDERS_FILE ")
    assert sentence in caught.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigurationError, match="ARKA_PROVIDERS_FILE cannot be read: No such file"):
        config.load({"ARKA_INSTANCE_PATH": str(tmp_path), "ARKA_PROVIDERS_FILE": str(tmp_path / "none.toml")})
