"""``completions``, the older form with a prompt, as the simulator answers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.errors import InvalidRequest
from services.gateway import prompts, sse
from services.gateway.simulator import triggers
from services.gateway.simulator.draft import Draft, draft, fingerprint, input_tokens, whole_number

_MOST_CHOICES = 128


class CompletionSimulation:
    """The answer to one request: ``n`` choices for each prompt. Raises InvalidRequest when it makes no sense."""

    def __init__(self, request: dict[str, Any], created: int) -> None:
        texts = _prompts(request.get("prompt"))
        prompt = prompts.read("completions", request)
        self._pace = triggers.rehearse(prompt.last, created)
        most = whole_number(request, "max_tokens")
        choices = whole_number(request, "n", most=_MOST_CHOICES) or 1
        if choices * len(texts) > _MOST_CHOICES:
            raise InvalidRequest(f"At most {_MOST_CHOICES} choices can be asked for at once.", param="prompt")
        self._drafts = [draft(text, most) for text in texts for _ in range(choices)]
        self.input_tokens = input_tokens(prompt)
        self.output_tokens = sum(len(made.words) for made in self._drafts)
        self._model, self._created = request["model"], created
        self._mark = fingerprint("completions", request)[:29]
        options = request.get("stream_options")
        self._tell_usage = isinstance(options, dict) and options.get("include_usage") is True

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""
        self._pace.whole(self.output_tokens)
        choices = [_choice(index, made.text, _finish_reason(made)) for index, made in enumerate(self._drafts)]
        return self._envelope() | {"choices": choices, "usage": self._usage()}

    def stream(self) -> Iterator[bytes]:
        """Yield the answer as server-sent events, a word each."""
        return self._pace.stream(self._events())

    def _events(self) -> Iterator[bytes]:
        for index, made in enumerate(self._drafts):
            for word in made.words:
                yield sse.event(self._envelope() | {"choices": [_choice(index, word, None)]})
            yield sse.event(self._envelope() | {"choices": [_choice(index, "", _finish_reason(made))]})
        if self._tell_usage:
            yield sse.event(self._envelope() | {"choices": [], "usage": self._usage()})
        yield sse.DONE

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._mark}",
            "object": "text_completion",
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


def _prompts(given: Any) -> list[str]:
    """Return the prompts as texts; one that is given as token numbers has none that could be quoted."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(item, str) for item in given):
            return given
        if all(_is_token(item) for item in given):
            return [""]
        if all(isinstance(item, list) and all(_is_token(token) for token in item) for item in given):
            return [""] * len(given)
    raise InvalidRequest("'prompt' must be a text, a list of texts, or token numbers.", param="prompt")


def _is_token(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and item >= 0


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _finish_reason(made: Draft) -> str:
    return "length" if made.cut_short else "stop"
