"""Reading along a stream: nothing lost, nothing added, however it is cut."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from services.gateway import sse
from services.gateway.endpoints import ENDPOINTS
from services.gateway.sse import StreamReader

CHAT = ENDPOINTS["chat/completions"]
USAGE = {"prompt_tokens": 7, "completion_tokens": 9}
EVENTS = [
    sse.event({"choices": [{"delta": {"content": "Grüße, “usage” \n[DONE]"}}]}),
    b": comment\n\n",
    b"event: x\r\ndata: {not json\r\n\r\n",
    b'data: {"usage": null}\n\n',
    b"\n",
    b"data:\n\n",
]


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    events = draw(st.lists(st.sampled_from(EVENTS), max_size=6))
    whole = b"".join(events) + sse.event({"choices": [], "usage": USAGE}) + sse.DONE + draw(st.binary(max_size=5))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return whole, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@given(cut_streams())
def test_the_bytes_passed_on_are_the_bytes_that_came(stream: tuple[bytes, list[bytes]]) -> None:
    whole, chunks = stream
    reader = StreamReader(CHAT)
    assert b"".join(reader.feed(chunk) for chunk in chunks) + reader.rest() == whole


@given(cut_streams())
def test_usage_and_the_end_are_found_wherever_the_cuts_fall(stream: tuple[bytes, list[bytes]]) -> None:
    reader = StreamReader(CHAT)
    for chunk in stream[1]:
        reader.feed(chunk)
    assert reader.seen.usage == USAGE
    assert reader.seen.finished


@given(cut_streams())
def test_only_whole_lines_are_passed_on(stream: tuple[bytes, list[bytes]]) -> None:
    reader = StreamReader(CHAT)
    for chunk in stream[1]:
        ready = reader.feed(chunk)
        assert ready == b"" or ready.endswith(b"\n")


def test_the_word_done_inside_a_text_is_no_end() -> None:
    reader = StreamReader(CHAT)
    reader.feed(sse.event({"content": "data: [DONE]"}) + b"[DONE]\n\n")
    assert not reader.seen.finished


def test_a_line_of_ten_megabytes_passes_without_being_kept() -> None:
    reader = StreamReader(CHAT)
    line = b"data: " + json.dumps({"x": "y" * 10_000_000}).encode() + b"\n\n"
    passed = 0
    for place in range(0, len(line), 65536):
        passed += len(reader.feed(line[place : place + 65536]))
        assert len(reader._line) < 1_200_000
    assert passed == len(line)
    reader.feed(sse.DONE)
    assert reader.seen.finished
