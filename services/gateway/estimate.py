"""Tokens counted by us, where the provider did not tell them, and the most a call can take.

The estimate is a rule of thumb, marked as such wherever it is stored: **four bytes of UTF-8 are one token**, which is
about four characters of English and fits other languages better than characters do. Pictures count 1,000 tokens each.

The most a call can take is never a guess: no token is shorter than a byte of the request, a picture counts 3,000
whatever its size, and the output is what the request allows.
"""

from __future__ import annotations

from typing import Any

from services.gateway.endpoints import Endpoint, text_bytes, texts_in

_BYTES_PER_TOKEN = 4
_PICTURE_TOKENS = 1_000
_MOST_PICTURE_TOKENS = 3_000
# What the provider itself adds from its memory cannot be seen here: the largest context that is common.
_STORED_CONTEXT_TOKENS = 200_000
_STORED_CONTEXT = ("conversation", "previous_response_id", "prompt")
_PICTURE_TYPES = frozenset({"image_url", "input_image"})
_PICTURE_DATA = "data:image/"


def tokens(written_bytes: int) -> int:
    """Return about how many tokens a text of so many bytes is."""
    return -(-written_bytes // _BYTES_PER_TOKEN)


def input_tokens(endpoint: Endpoint, request: dict[str, Any]) -> int:
    """Return about how many tokens the text and the pictures of a request are."""
    given = _given(endpoint, request)
    inline = sum(len(text) for text in texts_in(given) if text.startswith("data:"))
    return tokens(text_bytes(given) - inline) + len(_pictures(given)) * _PICTURE_TOKENS


def most_input_tokens(endpoint: Endpoint, request: dict[str, Any], body: bytes) -> int:
    """Return a number of tokens that the input of this call cannot exceed."""
    most = len(body)
    if b"image" in body:
        pictures = _pictures(_given(endpoint, request))
        # Only inside a picture: a text that looks like one is still billed as text.
        inline = (len(text) for text in texts_in(pictures) if text.startswith(_PICTURE_DATA))
        most += len(pictures) * _MOST_PICTURE_TOKENS - sum(inline)
    if not endpoint.ends_with_done and any(request.get(name) for name in _STORED_CONTEXT):
        most += _STORED_CONTEXT_TOKENS
    return most


def most_output_tokens(endpoint: Endpoint, request: dict[str, Any]) -> int | None:
    """Return how many tokens of output the request allows in all its choices; None: it does not say."""
    if endpoint.written_field is None:
        return 0
    limits: list[int] = [limit for name in endpoint.limit_fields if (limit := request.get(name)) is not None]
    choices: list[int] = [number for name in ("n", "best_of") if (number := request.get(name)) is not None]
    if not limits or not all(_is_count(number) for number in (*limits, *choices)):
        return None
    return max(limits) * max(choices, default=1) * _prompts(request)


def _given(endpoint: Endpoint, request: dict[str, Any]) -> list[Any]:
    return [request[name] for name in endpoint.input_fields if name in request]


def _prompts(request: dict[str, Any]) -> int:
    """A completion may hold several prompts, each a text or a list of token numbers, and answers every one."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and any(isinstance(part, str | list) for part in prompt):
        return len(prompt)
    return 1


def _pictures(value: Any) -> list[dict[str, Any]]:
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            kind = item.get("type")
            if isinstance(kind, str) and kind in _PICTURE_TYPES:
                found.append(item)
            else:
                waiting.extend(part for part in item.values() if isinstance(part, dict | list))
        elif isinstance(item, list):
            waiting.extend(part for part in item if isinstance(part, dict | list))
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
