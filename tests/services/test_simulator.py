"""The simulator: the provider's shapes, the same answer to the same question, and failures on request."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import InvalidRequest, PortalError
from services.gateway.simulator import simulate
from services.gateway.simulator.filled import filled

NOW = 1_800_000_000
ENDPOINTS = ["chat/completions", "completions", "embeddings", "responses"]
FIELD = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input", "responses": "input"}


def asking(endpoint: str, said: str, /, **more: Any) -> dict[str, Any]:
    """Return a request to the endpoint that says this."""
    content: Any = [{"role": "user", "content": said}] if endpoint == "chat/completions" else said
    return {"model": "gpt-4o", FIELD[endpoint]: content, **more}


def answer(endpoint: str, said: str = "Hello, world!", /, **more: Any) -> dict[str, Any]:
    return simulate(endpoint, asking(endpoint, said, **more), NOW).complete()


def events(endpoint: str, said: str = "Hello, world!", /, **more: Any) -> list[dict[str, Any]]:
    """Return the objects of the streamed answer."""
    lines = b"".join(simulate(endpoint, asking(endpoint, said, stream=True, **more), NOW).stream()).split(b"\n")
    data = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    return [json.loads(line) for line in data if line != b"[DONE]"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_same_request_gets_the_same_bytes_but_for_the_time(endpoint: str) -> None:
    told = [json.dumps(simulate(endpoint, asking(endpoint, "x"), NOW + i).complete()) for i in (0, 0, 60)]
    assert told[0] == told[1]
    assert told[0] == told[2].replace(str(NOW + 60), str(NOW))
    assert told[0] != json.dumps(answer(endpoint, "y"))


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "responses"])
def test_a_stream_says_what_the_whole_answer_says(endpoint: str) -> None:
    whole = answer(endpoint)
    streamed = events(endpoint)
    if endpoint == "responses":
        text = "".join(event["delta"] for event in streamed if event["type"] == "response.output_text.delta")
        assert streamed[-1]["response"] == whole
        assert text == whole["output"][0]["content"][0]["text"]
        assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    elif endpoint == "completions":
        assert "".join(event["choices"][0]["text"] for event in streamed) == whole["choices"][0]["text"]
    else:
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed)
        assert text == whole["choices"][0]["message"]["content"]
    assert "Hello, world!" in json.dumps(whole)


def test_the_events_of_a_response_come_in_openai_s_order() -> None:
    names = list(dict.fromkeys(event["type"] for event in events("responses")))
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_usage_adds_up_and_is_what_the_portal_keeps(endpoint: str) -> None:
    simulation = simulate(endpoint, asking(endpoint, "Hello, world!"), NOW)
    usage = simulation.complete()["usage"]
    asked, made = (
        ("input_tokens", "output_tokens") if endpoint == "responses" else ("prompt_tokens", "completion_tokens")
    )
    assert (usage[asked], usage.get(made, 0)) == (simulation.input_tokens, simulation.output_tokens)
    assert usage["total_tokens"] == simulation.input_tokens + simulation.output_tokens > 0


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [("chat/completions", "max_completion_tokens"), ("completions", "max_tokens"), ("responses", "max_output_tokens")],
)
def test_an_answer_is_cut_at_the_wanted_length_and_says_so(endpoint: str, name: str) -> None:
    simulation = simulate(endpoint, asking(endpoint, "Hello", **{name: 3}), NOW)
    told = simulation.complete()
    assert simulation.output_tokens == 3
    if endpoint == "responses":
        assert (told["status"], told["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert events(endpoint, max_output_tokens=3)[-1]["type"] == "response.incomplete"
    else:
        assert told["choices"][0]["finish_reason"] == "length"


def test_several_choices_and_prompts_are_answered_each() -> None:
    assert [choice["index"] for choice in answer("chat/completions", n=3)["choices"]] == [0, 1, 2]
    told = simulate("completions", {"model": "m", "prompt": ["one", "two"], "n": 2}, NOW).complete()
    assert ["two" in choice["text"] for choice in told["choices"]] == [False, False, True, True]


# ---- embeddings


@pytest.mark.parametrize(
    ("model", "dimensions", "size"),
    [("text-embedding-3-small", None, 1536), ("openai/text-embedding-3-large", None, 3072), ("any", 7, 7)],
)
def test_a_vector_has_the_wanted_size_and_length_one(model: str, dimensions: int | None, size: int) -> None:
    request = {"model": model, "input": ["hello", "hello", "other"], "dimensions": dimensions}
    first, second, other = (row["embedding"] for row in simulate("embeddings", request, NOW).complete()["data"])
    assert len(first) == size
    assert math.isclose(sum(number * number for number in first), 1, rel_tol=1e-5)
    assert first == second != other


def test_base64_holds_the_same_numbers() -> None:
    numbers = answer("embeddings", dimensions=12)["data"][0]["embedding"]
    packed = base64.b64decode(answer("embeddings", dimensions=12, encoding_format="base64")["data"][0]["embedding"])
    assert list(struct.unpack("<12f", packed)) == numbers


def test_a_large_batch_of_vectors_is_made_in_a_moment() -> None:
    begun = time.thread_time()
    told = simulate(
        "embeddings", {"model": "text-embedding-3-small", "input": [f"text {i}" for i in range(1000)]}, NOW
    ).complete()
    assert len(told["data"]) == 1000
    assert time.thread_time() - begun < 3


# ---- tools and JSON

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "stars": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}},
        "author": {"$ref": "#/$defs/person"},
        "when": {"type": ["null", "string"], "format": "date"},
    },
    "$defs": {"person": {"properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/person"}}}},
}


def test_json_of_the_wanted_schema_is_answered() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "book", "schema": SCHEMA}}
    content = answer("chat/completions", response_format=form)["choices"][0]["message"]["content"]
    value = json.loads(content)
    assert "Hello, world!" in value["title"]
    assert (value["stars"], value["tags"], value["when"]) == (1, ["new"], "2026-01-01")
    assert value["author"]["name"] == "simulated"
    text = answer("responses", text={"format": {"type": "json_schema", "name": "book", "schema": SCHEMA}})
    assert json.loads(text["output"][0]["content"][0]["text"]) == value


@pytest.mark.parametrize(("endpoint", "field"), [("chat/completions", "response_format"), ("responses", "text")])
def test_a_json_object_is_answered_when_one_is_asked_for(endpoint: str, field: str) -> None:
    form = {"type": "json_object"}
    told = answer(endpoint, **{field: form if endpoint == "chat/completions" else {"format": form}})
    text = told["choices"][0]["message"]["content"] if "choices" in told else told["output"][0]["content"][0]["text"]
    assert list(json.loads(text)) == ["answer"]


def test_a_tool_is_called_when_it_must_be_and_only_then() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("first", "second")]
    assert answer("chat/completions", tools=tools)["choices"][0]["message"].get("tool_calls") is None
    choice = answer("chat/completions", tools=tools, tool_choice="required")["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]
    assert call["function"]["name"] == "first"
    named = {"type": "function", "function": {"name": "second"}}
    streamed = events("chat/completions", tools=tools, tool_choice=named)
    pieces = [event["choices"][0]["delta"].get("tool_calls", [{}])[0] for event in streamed]
    assert pieces[1]["function"]["name"] == "second"
    arguments = "".join(piece.get("function", {}).get("arguments", "") for piece in pieces)
    assert json.loads(arguments) == json.loads(call["function"]["arguments"])


def test_a_response_calls_a_tool_with_its_own_events() -> None:
    tools = [{"type": "function", "name": "look_up", "parameters": SCHEMA}]
    streamed = events("responses", tools=tools, tool_choice="required")
    item = streamed[-1]["response"]["output"][0]
    assert (item["type"], item["name"]) == ("function_call", "look_up")
    deltas = [event["delta"] for event in streamed if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(deltas) == item["arguments"]
    json.loads(item["arguments"])


TEXT = st.text("ab {}:\n\0é²", max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
WORDS = st.sampled_from(
    [
        "type",
        "object",
        "array",
        "string",
        "properties",
        "items",
        "$ref",
        "#",
        "#/properties/a",
        "a",
        "anyOf",
        "enum",
        "minItems",
        "const",
    ]
)
SCHEMAS = st.recursive(
    WORDS | st.integers(-3, 3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(SCHEMAS)
def test_any_schema_is_filled_with_something_that_is_json(schema: Any) -> None:
    assert len(json.dumps(filled(schema, "text"))) < 100_000


def test_a_schema_without_end_is_filled_with_a_part_of_it() -> None:
    branch = {"properties": {name: {"$ref": "#"} for name in "abcdefghij"}}
    assert len(json.dumps(filled(branch, "text"))) < 100_000


NAMES = (
    "messages prompt input n max_tokens tools tool_choice response_format text stream_options dimensions "
    "encoding_format role content type function json_schema schema instructions"
)
FIELDS = st.sampled_from(NAMES.split(" "))
OBJECTS = st.dictionaries(
    FIELDS, JSON | SCHEMAS | st.lists(st.dictionaries(FIELDS, JSON, max_size=4), max_size=3), max_size=6
)


@settings(max_examples=150)
@given(request=OBJECTS, model=JSON, endpoint=st.sampled_from(ENDPOINTS), good=st.booleans(), stream=st.booleans())
def test_no_json_is_too_odd_to_be_answered_or_refused(
    request: dict[str, Any], model: Any, endpoint: str, good: bool, stream: bool
) -> None:
    if good:
        request = {**asking(endpoint, "hello"), **request, "model": "m"}
    try:
        simulation = simulate(endpoint, {"model": model, **request}, NOW)
        json.dumps(simulation.complete())
        if stream and endpoint != "embeddings":
            assert list(simulation.stream())
    except InvalidRequest as error:
        assert error.status == 400  # noqa: PT017 - every other exception is the failure


# ---- rehearsals that need no portal


@pytest.mark.parametrize(
    ("trigger", "status", "code", "retry_after"),
    [
        ("simulate:402", 402, "spending_limit_reached", None),
        ("simulate:429", 429, "rate_limit_exceeded", 30),
        ("simulate:429:7", 429, "rate_limit_exceeded", 7),
        ("simulate:429:0", 429, "rate_limit_exceeded", 1),
        ("simulate:429:9999999999", 429, "rate_limit_exceeded", 3600),
        (f"simulate:429:until:{NOW + 12}", 429, "rate_limit_exceeded", 12),
        ("simulate:503", 503, "service_unavailable", 2),
        ("simulate:503:9", 503, "service_unavailable", 9),
    ],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_trigger_word_rehearses_its_failure_everywhere(
    endpoint: str, trigger: str, status: int, code: str, retry_after: int | None
) -> None:
    with pytest.raises(PortalError) as caught:
        answer(endpoint, f"Please {trigger}, thanks.")
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (status, code, retry_after)


def test_a_countdown_ends_and_then_the_same_request_is_answered() -> None:
    request = asking("chat/completions", f"simulate:429:until:{NOW}")
    left = []
    for moment in (NOW - 3, NOW - 2, NOW - 1):
        with pytest.raises(PortalError) as caught:
            simulate("chat/completions", request, moment)
        left.append(caught.value.retry_after)
    assert left == [3, 2, 1]
    assert simulate("chat/completions", request, NOW).complete()["choices"]


@pytest.mark.parametrize(
    "text",
    [
        "simulate: 429",
        "simulate:4290",
        "simulate:429-x",
        "simulate:teapot",
        "simulate",
        "SIMULATE:429",
        "simulate:provider",
    ],
)
def test_what_is_no_trigger_is_ordinary_text(text: str) -> None:
    assert text in json.dumps(answer("chat/completions", text))


def test_only_the_user_s_last_message_is_looked_at() -> None:
    def said(*turns: tuple[str, str]) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": role, "content": content} for role, content in turns]}

    assert simulate("chat/completions", said(("system", "simulate:503"), ("user", "hi")), NOW).complete()
    assert simulate("chat/completions", said(("user", "simulate:503"), ("user", "go on")), NOW).complete()
    with pytest.raises(PortalError):
        simulate("chat/completions", said(("user", "simulate:503"), ("assistant", "Sorry.")), NOW)


def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let time pass at once, and return the list in which the pauses are noted."""
    noted: list[float] = []
    monkeypatch.setattr("services.gateway.simulator.triggers.stopping.pause", noted.append)
    return noted


def slow(words: str) -> Iterator[bytes]:
    return simulate("chat/completions", asking("chat/completions", words, stream=True), NOW).stream()


def test_a_slow_stream_pauses_before_each_event_and_a_slow_answer_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = pauses(monkeypatch)
    told = list(slow("simulate:slow:0.25"))
    assert noted == [0.25] * len(told)
    noted.clear()
    answer("chat/completions", "simulate:slow:0.25")
    assert len(noted) == 1
    assert noted[0] >= 3


def test_a_slow_stream_ends_within_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = pauses(monkeypatch)
    assert list(slow("simulate:slow:9999 " + "word " * 200))[-1] == b"data: [DONE]\n\n"
    assert max(noted) == 5
    assert sum(noted) == 30


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "responses"])
def test_a_cut_stream_has_a_beginning_and_no_end(endpoint: str) -> None:
    told = b"".join(simulate(endpoint, asking(endpoint, "simulate:cut", stream=True), NOW).stream())
    assert told
    assert b"[DONE]" not in told
    assert b'finish_reason":"stop' not in told
    assert b"response.completed" not in told
    with pytest.raises(PortalError) as caught:
        answer(endpoint, "simulate:cut")
    assert (caught.value.status, caught.value.code) == (503, "provider_unreachable")


def test_ten_megabytes_of_prompt_are_answered_in_a_moment() -> None:
    for piece in ("simulate:", "word ", " ", "\n"):
        begun = time.thread_time()
        answer("chat/completions", piece * (10_000_000 // len(piece)))
        assert time.thread_time() - begun < 2
