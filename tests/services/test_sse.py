"""Reading along a stream: nothing lost, nothing added, and at most the one report that nobody asked for left out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import sse
from services.gateway.endpoints import ENDPOINTS, Endpoint
from services.gateway.sse import StreamReader

CHAT, RESPONSES = ENDPOINTS["chat/completions"], ENDPOINTS["responses"]
USAGE = {"prompt_tokens": 7, "completion_tokens": 9}
REPORT = sse.event({"choices": [], "usage": USAGE})
EVENTS = [
    sse.event({"choices": [{"delta": {"content": "Grüße, “usage” \n[DONE]"}}]}),
    sse.event({"choices": [{"delta": {"content": "x"}}], "usage": None}),
    # Usage beside text is part of the answer.
    sse.event({"choices": [{"delta": {"content": "y"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
    sse.event({"choices": [], "prompt_filter_results": []}),
    b": comment\n\n",
    b"event: x\r\ndata: {not json\r\n\r\n",
    b'data: {"usage": null}\n\n',
    b'data: {"choices": [], "usage": 7}\n\n',
    b"data: [1]\n\n",
    b"\n",
    b"data:\n\n",
]


def cut(whole: bytes, cuts: list[int]) -> list[bytes]:
    return [whole[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), len(whole)], strict=True)]


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes]]:
    """A stream without and with a report of usage before its end, and the latter in pieces."""
    events = draw(st.lists(st.sampled_from(EVENTS), max_size=6))
    report = draw(st.sampled_from([REPORT, REPORT.replace(b"\n", b"\r\n")]))
    rest = sse.DONE + draw(st.binary(max_size=5))
    whole = b"".join(events) + report + rest
    return b"".join(events) + rest, whole, cut(whole, draw(st.lists(st.integers(0, len(whole)), max_size=12)))


@given(cut_streams())
def test_the_bytes_passed_on_are_the_bytes_that_came(stream: tuple[bytes, bytes, list[bytes]]) -> None:
    _, whole, chunks = stream
    reader = StreamReader(CHAT)
    assert b"".join(reader.feed(chunk) for chunk in chunks) + reader.rest() == whole


@given(cut_streams())
def test_only_the_report_nobody_asked_for_is_left_out(stream: tuple[bytes, bytes, list[bytes]]) -> None:
    without, _, chunks = stream
    reader = StreamReader(CHAT, without_usage=True)
    assert b"".join(reader.feed(chunk) for chunk in chunks) + reader.rest() == without
    assert reader.seen.usage == USAGE


@given(cut_streams())
def test_usage_text_and_the_end_are_found_wherever_the_cuts_fall(stream: tuple[bytes, bytes, list[bytes]]) -> None:
    whole, again = StreamReader(CHAT), StreamReader(CHAT)
    for chunk in stream[2]:
        again.feed(chunk)
    whole.feed(stream[1])
    assert again.seen == whole.seen
    assert (again.seen.usage, again.seen.finished) == (USAGE, True)


@given(cut_streams())
def test_only_whole_lines_are_passed_on(stream: tuple[bytes, bytes, list[bytes]]) -> None:
    for without_usage in (False, True):
        reader = StreamReader(CHAT, without_usage=without_usage)
        for chunk in stream[2]:
            ready = reader.feed(chunk)
            assert ready == b"" or ready.endswith(b"\n")


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.data())
def test_the_text_of_deltas_is_counted_in_bytes(texts: list[str], data: st.DataObject) -> None:
    whole = b"".join(sse.event({"choices": [{"index": 0, "delta": {"content": text}}]}) for text in texts)
    reader = StreamReader(CHAT)
    for chunk in cut(whole, data.draw(st.lists(st.integers(0, len(whole)), max_size=5))):
        reader.feed(chunk)
    assert reader.seen.text_bytes == len("".join(texts).encode())


def test_what_tools_are_called_with_counts_and_what_only_labels_does_not() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"a":1}'}}
    reader = StreamReader(CHAT)
    reader.feed(
        sse.event({"choices": [{"delta": {"role": "assistant", "tool_calls": [call]}, "logprobs": {"a": "b"}}]})
    )
    assert reader.seen.text_bytes == len('{"a":1}')


RESPONSE_EVENTS = [
    sse.event({"type": "response.output_text.delta", "delta": "Grüße"}),
    sse.event({"type": "response.function_call_arguments.delta", "delta": "\N{ZERO WIDTH SPACE}"}),
    sse.event({"type": "response.output_item.completed"}),
    sse.event({"type": "error", "message": "overloaded"}),
    sse.event({"type": "response.incomplete", "response": {"usage": {"input_tokens": 1}}}),
    b'event: x\ndata: {"type": "response\\u002efailed", "response": {"error": {"code": "e"}}}\r\n\r\n',
    b"\n",
]


@given(st.sampled_from([(CHAT, EVENTS), (RESPONSES, RESPONSE_EVENTS)]), st.data())
def test_what_is_read_late_is_read_as_it_would_be_at_once(
    kind: tuple[Endpoint, list[bytes]], data: st.DataObject
) -> None:
    endpoint, events = kind
    whole = b"".join(data.draw(st.lists(st.sampled_from(events), max_size=8)))
    late, at_once = StreamReader(endpoint), StreamReader(endpoint)
    for chunk in cut(whole, data.draw(st.lists(st.integers(0, len(whole)), max_size=8))):
        assert late.feed(chunk) == at_once.feed(chunk)
        assert late.finished == at_once.seen.finished
    assert late.seen == at_once.seen


@pytest.mark.parametrize("choices", ['"choices":[]', '"choices" : [ ]', '"\\u0063hoices": []'])
def test_the_report_nobody_asked_for_is_left_out_however_it_is_spelt(choices: str) -> None:
    reader = StreamReader(CHAT, without_usage=True)
    assert reader.feed(f"data: {{{choices}, {json.dumps({'usage': USAGE})[1:]}\n\n".encode()) == b""
    assert reader.seen.usage == USAGE


def test_little_is_kept_of_what_is_read_late() -> None:
    reader = StreamReader(CHAT)
    event = sse.event({"choices": [{"delta": {"content": "x" * 100}}]})
    for _ in range(1000):
        reader.feed(event)
        assert sum(map(len, reader._unread)) < 10_000
    assert reader.seen.text_bytes == 100_000


def test_the_word_done_inside_a_text_is_no_end() -> None:
    reader = StreamReader(CHAT)
    reader.feed(sse.event({"content": "data: [DONE]"}) + b"[DONE]\n\n")
    assert not reader.seen.finished


def test_a_line_of_ten_megabytes_passes_without_being_kept_and_counts_as_text() -> None:
    reader = StreamReader(CHAT)
    line = b"data: " + json.dumps({"x": "y" * 10_000_000}).encode() + b"\n\n"
    passed = 0
    for place in range(0, len(line), 65536):
        passed += len(reader.feed(line[place : place + 65536]))
        assert len(reader._line) < 1_200_000
    assert passed == len(line)
    assert reader.seen.text_bytes > 9_000_000
    reader.feed(sse.DONE)
    assert reader.seen.finished


def test_the_middle_of_a_long_line_is_not_read_as_the_beginning_of_one() -> None:
    reader = StreamReader(CHAT)
    # After a million bytes the line is forgotten; what comes then looks like an end, and is text.
    reader.feed(b"data: " + b"y" * 1_000_000)
    reader.feed(b"data: [DONE]\n\n")
    assert not reader.seen.finished


@pytest.mark.parametrize("last", ["completed", "incomplete", "failed", "cancelled"])
def test_responses_end_with_an_event_that_holds_their_usage(last: str) -> None:
    reader = StreamReader(RESPONSES)
    reader.feed(sse.event({"type": "response.created", "response": {"usage": None}}))
    reader.feed(sse.event({"type": "response.output_text.delta", "delta": "four"}))
    reader.feed(sse.DONE)
    assert (reader.seen.finished, reader.seen.usage, reader.seen.text_bytes) == (False, None, 4)
    usage = {"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 3}}
    reader.feed(sse.event({"type": f"response.{last}", "response": {"usage": usage, "error": {"message": "no"}}}))
    assert reader.seen.finished
    assert RESPONSES.usage_of(reader.seen.usage) == (5, 3, 6)
    assert (reader.seen.error is not None) == (last == "failed")
