"""``chat/completions`` as the simulator answers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.errors import InvalidRequest
from services.gateway import prompts, sse
from services.gateway.simulator import triggers
from services.gateway.simulator.draft import Wanted, draft, fingerprint, input_tokens, wanted_tool, whole_number

_MOST_CHOICES = 128


class ChatSimulation:
    """The answer to one chat request. Raises InvalidRequest when the request makes no sense."""

    def __init__(self, request: dict[str, Any], created: int) -> None:
        _check(request)
        prompt = prompts.read("chat/completions", request)
        self._pace = triggers.rehearse(prompt.last, created)
        most = whole_number(request, "max_completion_tokens") or whole_number(request, "max_tokens")
        self._choices = whole_number(request, "n", most=_MOST_CHOICES) or 1
        self._draft = draft(prompt.last, most, _wanted(request))
        self.input_tokens = input_tokens(prompt)
        self.output_tokens = len(self._draft.words) * self._choices
        self._model, self._created = request["model"], created
        self._mark = fingerprint("chat", request)[:29]
        options = request.get("stream_options")
        self._tell_usage = isinstance(options, dict) and options.get("include_usage") is True

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""
        self._pace.whole(len(self._draft.words))
        message: dict[str, Any] = {"role": "assistant", "content": self._draft.text, "refusal": None}
        if self._draft.tool is not None:
            message |= {"content": None, "tool_calls": [self._tool_call(self._draft.text)]}
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
            for index in range(self._choices)
        ]
        return self._envelope("chat.completion") | {"choices": choices, "usage": self._usage()}

    def stream(self) -> Iterator[bytes]:
        """Yield the answer as server-sent events, a word each."""
        return self._pace.stream(self._events())

    def _events(self) -> Iterator[bytes]:
        for index in range(self._choices):
            yield self._chunk(
                index, {"role": "assistant", "content": None if self._draft.tool else "", "refusal": None}
            )
            if self._draft.tool is not None:
                yield self._chunk(index, {"tool_calls": [{"index": 0} | self._tool_call("")]})
            for word in self._draft.words:
                yield self._chunk(index, self._delta(word))
            yield self._chunk(index, {}, self._finish_reason)
        if self._tell_usage:
            yield sse.event(self._envelope("chat.completion.chunk") | {"choices": [], "usage": self._usage()})
        yield sse.DONE

    def _delta(self, word: str) -> dict[str, Any]:
        if self._draft.tool is None:
            return {"content": word}
        return {"tool_calls": [{"index": 0, "function": {"arguments": word}}]}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._tell_usage else {}
        return sse.event(self._envelope("chat.completion.chunk") | {"choices": [choice]} | usage)

    @property
    def _finish_reason(self) -> str:
        if self._draft.cut_short:
            return "length"
        return "stop" if self._draft.tool is None else "tool_calls"

    def _tool_call(self, arguments: str) -> dict[str, Any]:
        function = {"name": self._draft.tool, "arguments": arguments}
        return {"id": f"call_{self._mark[:24]}", "type": "function", "function": function}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._mark}",
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": "fp_simulator",
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def _check(request: dict[str, Any]) -> None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list with at least one message.", param="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"'messages[{place}]' must be an object with a role.", param=f"messages[{place}]")


def _wanted(request: dict[str, Any]) -> Wanted | None:
    tool = wanted_tool(
        request.get("tool_choice"),
        request.get("tools"),
        lambda tool: _inner(tool, "function").get("name"),
        lambda tool: _inner(tool, "function").get("parameters"),
    )
    if tool is not None:
        return tool
    form = _inner(request, "response_format")
    if form.get("type") == "json_schema":
        schema = _inner(form, "json_schema").get("schema")
        return Wanted(schema if schema is not None else {})
    return Wanted({"properties": {"answer": {}}}) if form.get("type") == "json_object" else None


def _inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
