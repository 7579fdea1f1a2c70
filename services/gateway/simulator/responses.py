"""``responses`` as the simulator answers them, whole or as OpenAI's named events.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from services.errors import InvalidRequest
from services.gateway import prompts
from services.gateway.simulator import triggers
from services.gateway.simulator.draft import Wanted, draft, fingerprint, input_tokens, wanted_tool, whole_number

# What a response repeats of its request, and what it says when the request does not.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}


class ResponseSimulation:
    """The answer to one request. Raises InvalidRequest when the request makes no sense."""

    def __init__(self, request: dict[str, Any], created: int) -> None:
        given = request.get("input")
        if not isinstance(given, str | list) or not given:
            raise InvalidRequest("'input' must be a text or a list of items.", param="input")
        prompt = prompts.read("responses", request)
        self._pace = triggers.rehearse(prompt.last, created)
        self._draft = draft(prompt.last, whole_number(request, "max_output_tokens"), _wanted(request))
        self.input_tokens, self.output_tokens = input_tokens(prompt), len(self._draft.words)
        self._request, self._created = request, created
        self._mark = fingerprint("responses", request)[:48]

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""
        self._pace.whole(len(self._draft.words))
        return self._response(self._status, [self._item(self._draft.text, "completed")])

    def stream(self) -> Iterator[bytes]:
        """Yield the answer as named events, a word each."""
        return self._pace.stream(_numbered(self._events()))

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "response.created", {"response": self._response("in_progress", [])}
        yield "response.in_progress", {"response": self._response("in_progress", [])}
        item = self._item("", "in_progress") | ({"content": []} if self._draft.tool is None else {})
        yield "response.output_item.added", {"output_index": 0, "item": item}
        yield from self._text_events() if self._draft.tool is None else self._call_events()
        done = self._item(self._draft.text, "completed")
        yield "response.output_item.done", {"output_index": 0, "item": done}
        yield f"response.{self._status}", {"response": self._response(self._status, [done])}

    def _text_events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        yield "response.content_part.added", place | {"part": _text_part("")}
        for word in self._draft.words:
            yield "response.output_text.delta", place | {"delta": word, "logprobs": []}
        yield "response.output_text.done", place | {"text": self._draft.text, "logprobs": []}
        yield "response.content_part.done", place | {"part": _text_part(self._draft.text)}

    def _call_events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        place = {"item_id": self._item_id, "output_index": 0}
        for word in self._draft.words:
            yield "response.function_call_arguments.delta", place | {"delta": word}
        told = {"name": self._draft.tool, "arguments": self._draft.text}
        yield "response.function_call_arguments.done", place | told

    @property
    def _status(self) -> str:
        return "incomplete" if self._draft.cut_short else "completed"

    @property
    def _item_id(self) -> str:
        return f"{'msg' if self._draft.tool is None else 'fc'}_{self._mark}"

    def _item(self, text: str, status: str) -> dict[str, Any]:
        if self._draft.tool is None:
            content = [_text_part(text)]
            return {
                "id": self._item_id,
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": content,
            }
        return {
            "id": self._item_id,
            "type": "function_call",
            "status": status,
            "call_id": f"call_{self._mark[:24]}",
            "name": self._draft.tool,
            "arguments": text,
        }

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        over = status != "in_progress"
        repeated = {
            name: otherwise if self._request.get(name) is None else self._request[name]
            for name, otherwise in _REPEATED.items()
        }
        return {
            "id": f"resp_{self._mark}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self._request["model"],
            "output": output,
            "usage": self._usage() if over else None,
            **repeated,
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


def _numbered(events: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[bytes]:
    for number, (name, data) in enumerate(events):
        told = {"type": name, "sequence_number": number, **data}
        yield b"event: " + name.encode() + b"\ndata: " + orjson.dumps(told) + b"\n\n"


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _wanted(request: dict[str, Any]) -> Wanted | None:
    tool = wanted_tool(
        request.get("tool_choice"),
        request.get("tools"),
        lambda tool: tool.get("name"),
        lambda tool: tool.get("parameters"),
    )
    if tool is not None:
        return tool
    text = request.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_schema":
        return Wanted(form["schema"] if form.get("schema") is not None else {})
    return Wanted({"properties": {"answer": {}}}) if form.get("type") == "json_object" else None
