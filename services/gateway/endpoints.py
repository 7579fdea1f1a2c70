"""The endpoints that are relayed, as data: what tells one from another is told here, never by an ``if`` in the relay.

https://platform.openai.com/docs/api-reference: ``chat``, ``completions``, ``embeddings`` and ``responses``, with the
events of their streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Counts go into columns of 32 bits.
_MOST_TOKENS = 2**31 - 1
# Fields whose text nobody wrote, or which say the same text again.
_NOT_WRITTEN = frozenset(
    {
        "call_id",
        "encrypted_content",
        "finish_reason",
        "id",
        "logprobs",
        "name",
        "reasoning_details",
        "role",
        "status",
        "type",
    }
)

_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_LAST_EVENT = re.compile("|".join(map(re.escape, _LAST_EVENTS)).encode())
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class Usage(NamedTuple):
    """What an answer took, as far as the provider told it."""

    input_tokens: int | None
    cached_input_tokens: int | None
    output_tokens: int | None


@dataclass(slots=True)
class Seen:
    """What was seen of a stream so far."""

    # The newest report of usage.
    usage: dict[str, Any] | None = None
    # How much text the model wrote, in bytes of UTF-8.
    text_bytes: int = 0
    # Whether the stream has come to its end.
    finished: bool = False
    # The provider's own word about a failure.
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A kind of request that is passed on."""

    # The path below ``/v1``, the same at every provider.
    name: str
    # What the counts are called in a report of usage.
    input_name: str
    output_name: str
    # Takes note of one event of a stream; None: the answer is never streamed.
    note: Callable[[Seen, dict[str, Any]], None] | None
    # Found in every event, spelt without escapes, that decides what is passed on or ends the stream.
    urgent: re.Pattern[bytes] = _NO_CHOICES
    # Whether ``data: [DONE]`` ends a stream. If not, an event does.
    ends_with_done: bool = True
    # Whether a stream reports usage only when the request's ``stream_options`` ask for it.
    usage_on_request: bool = False
    # Fields of the request that the provider turns into input.
    input_fields: tuple[str, ...] = field(default=())
    # Fields of the request that bound the output. Those of another endpoint bound nothing here.
    limit_fields: tuple[str, ...] = field(default=())
    # The field of a whole answer that holds what the model wrote; None: nothing was written.
    written_field: str | None = None
    # What must not be switched on, each with the reason.
    not_offered: Mapping[str, str] = field(default_factory=dict)

    def usage_of(self, report: Any) -> Usage:
        """Read a report of usage; what is no count is left out."""
        if not isinstance(report, dict):
            return Usage(None, None, None)
        details = report.get(f"{self.input_name}_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        written = _count(report.get(self.output_name)) if self.written_field else 0
        return Usage(_count(report.get(self.input_name)), _count(cached), written)

    def written_bytes(self, answer: dict[str, Any]) -> int:
        """Return how much text a whole answer holds, in bytes of UTF-8."""
        return text_bytes(answer.get(self.written_field)) if self.written_field else 0


def text_bytes(value: Any) -> int:
    """Return how much text there is in a JSON value, at any depth, in bytes of UTF-8."""
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts_in(value))


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value that somebody wrote, leaving out roles, types and identifiers."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(part for name, part in item.items() if name not in _NOT_WRITTEN)
        elif isinstance(item, list):
            waiting.extend(item)


def _note_chunk(seen: Seen, event: dict[str, Any]) -> None:
    """A chunk of a chat: what is new of each choice, and in the end the usage."""
    choices = event.get("choices")
    if choices:
        seen.text_bytes += text_bytes(choices)
    _note_report(seen, event.get("usage"))
    error = event.get("error")
    if error:
        seen.error = error if isinstance(error, dict) else {"message": error}


def _note_response_event(seen: Seen, event: dict[str, Any]) -> None:
    """A typed event: text comes in those named ``....delta``, usage in the last one."""
    kind = event.get("type")
    if not isinstance(kind, str):
        return
    if kind.endswith(".delta"):
        seen.text_bytes += text_bytes(event.get("delta"))
    elif kind in _LAST_EVENTS:
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        _note_report(seen, response.get("usage"))
        seen.finished = True
        if kind == "response.failed":
            error = response.get("error")
            seen.error = error if isinstance(error, dict) else {}
    elif kind == "error":
        seen.error = event


def _note_report(seen: Seen, usage: Any) -> None:
    if isinstance(usage, dict):
        seen.usage = usage


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


_ROWS = (
    Endpoint(
        "chat/completions",
        "prompt_tokens",
        "completion_tokens",
        _note_chunk,
        usage_on_request=True,
        input_fields=("messages", "tools", "functions", "response_format"),
        limit_fields=("max_completion_tokens", "max_tokens"),
        written_field="choices",
    ),
    Endpoint(
        "completions",
        "prompt_tokens",
        "completion_tokens",
        _note_chunk,
        usage_on_request=True,
        input_fields=("prompt", "suffix"),
        limit_fields=("max_tokens",),
        written_field="choices",
    ),
    Endpoint("embeddings", "prompt_tokens", "completion_tokens", None, input_fields=("input",)),
    Endpoint(
        "responses",
        "input_tokens",
        "output_tokens",
        _note_response_event,
        urgent=_LAST_EVENT,
        ends_with_done=False,
        input_fields=("input", "instructions", "tools", "text"),
        limit_fields=("max_output_tokens",),
        written_field="output",
        # Its usage would never be told here, and its answer could not be fetched.
        not_offered={"background": "Responses in the background are not offered: they could not be fetched here."},
    ),
)
ENDPOINTS = {row.name: row for row in _ROWS}
