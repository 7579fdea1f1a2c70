"""What answers test keys: the same shapes as a provider's, made here, deterministic, at no cost."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any

from services.errors import InvalidRequest
from services.gateway import sse

# The models the product's guides name; a test key may ask for any other as well.
MODELS = {
    "gpt-4o": "openai",
    "gpt-4o-mini": "openai",
    "gpt-4-turbo": "openai",
    "o1-mini": "openai",
    "anthropic/claude-3.5-sonnet": "openrouter",
    "google/gemini-pro-1.5": "openrouter",
    "meta-llama/llama-3.1-70b-instruct": "openrouter",
    "deepseek/deepseek-chat": "openrouter",
}
PROVIDER = "simulator"
_QUOTED_CHARACTERS = 200
_CHARACTERS_PER_TOKEN = 4


def simulate(endpoint: str, request: dict[str, Any], created: int) -> Simulation:
    """Answer a request. Raises InvalidRequest for an endpoint that is not simulated."""
    if endpoint != "chat/completions":
        raise InvalidRequest(f"Test keys cannot call {endpoint} yet.")
    return Simulation(request, created)


class Simulation:
    """The answer to one chat request. Raises InvalidRequest when the request makes no sense."""

    def __init__(self, request: dict[str, Any], created: int) -> None:
        self._model = request["model"]
        self._created = created
        messages = _messages(request)
        prompt = "\n".join(_text_of(message) for message in messages)
        words = re.findall(r"\s*\S+", _reply_to(_text_of(messages[-1])))
        most = _most_tokens(request)
        self._words = words[:most]
        self._finish_reason = "stop" if len(self._words) == len(words) else "length"
        self.input_tokens = _tokens(prompt) + len(messages)
        self.output_tokens = len(self._words)
        # The same request gets the same id, so that a run can be compared with another.
        self._id = "chatcmpl-" + hashlib.sha256(f"{self._model}\n{prompt}\n{most}".encode()).hexdigest()[:29]
        options = request.get("stream_options")
        self._tell_usage = isinstance(options, dict) and options.get("include_usage") is True

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""
        message = {"role": "assistant", "content": "".join(self._words), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        return self._envelope("chat.completion") | {"choices": [choice], "usage": self._usage()}

    def stream(self) -> Iterator[bytes]:
        """Yield the answer as server-sent events, a word each."""
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        for word in self._words:
            yield self._chunk({"content": word})
        yield self._chunk({}, self._finish_reason)
        if self._tell_usage:
            yield sse.event(self._envelope("chat.completion.chunk") | {"choices": [], "usage": self._usage()})
        yield sse.DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._tell_usage else {}
        return sse.event(self._envelope("chat.completion.chunk") | {"choices": [choice]} | usage)

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": "fp_simulator",
        }

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list with at least one message.", param="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"'messages[{place}]' must be an object with a role.", param=f"messages[{place}]")
    return messages


def _most_tokens(request: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        most = request.get(name)
        if most is not None:
            if not isinstance(most, int) or isinstance(most, bool) or most < 1:
                raise InvalidRequest(f"'{name}' must be a whole number above 0.", param=name)
            return most
    return None


def _text_of(message: dict[str, Any]) -> str:
    """Return the text of a message, whose content is a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(text for text in texts if isinstance(text, str))
    return ""


def _reply_to(text: str) -> str:
    quoted = " ".join(text.split())
    if len(quoted) > _QUOTED_CHARACTERS:
        quoted = quoted[:_QUOTED_CHARACTERS] + "…"
    return f"This answer comes from the simulator; no provider was called. You wrote: {quoted}"


def _tokens(text: str) -> int:
    return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
