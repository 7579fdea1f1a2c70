"""``embeddings`` as the simulator answers them: a unit vector for each input, made from its hash.

The same text has the same vector with every model of the same size; different texts have nothing in common.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Iterator
from typing import Any

import orjson

from services.errors import InvalidRequest
from services.gateway import prompts
from services.gateway.simulator import triggers
from services.gateway.simulator.draft import input_tokens, whole_number

_SIZES = {"text-embedding-3-large": 3072}
_USUAL_SIZE = 1536
_NOT_STREAMED = "Embeddings are not streamed."
_LARGEST = 4096
# OpenAI's own bound (https://platform.openai.com/docs/api-reference/embeddings/create).
_MOST_INPUTS = 2048


class EmbeddingSimulation:
    """The vectors for one request. Raises InvalidRequest when the request makes no sense."""

    output_tokens = 0

    def __init__(self, request: dict[str, Any], created: int) -> None:
        self._inputs = _inputs(request.get("input"))
        self._form = request.get("encoding_format") or "float"
        if self._form not in ("float", "base64"):
            raise InvalidRequest("'encoding_format' must be float or base64.", param="encoding_format")
        if request.get("stream") is True:
            raise InvalidRequest(_NOT_STREAMED, param="stream")
        self._model = request["model"]
        usual = _SIZES.get(self._model.rpartition("/")[2], _USUAL_SIZE)
        self._size = whole_number(request, "dimensions", most=_LARGEST) or usual
        prompt = prompts.read("embeddings", request)
        self._pace = triggers.rehearse(prompt.last, created)
        self.input_tokens = input_tokens(prompt)

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""
        self._pace.whole(1)
        rows = [
            {"object": "embedding", "index": index, "embedding": self._told(_vector(item, self._size))}
            for index, item in enumerate(self._inputs)
        ]
        usage = {"prompt_tokens": self.input_tokens, "total_tokens": self.input_tokens}
        return {"object": "list", "data": rows, "model": self._model, "usage": usage}

    def stream(self) -> Iterator[bytes]:
        """Embeddings come whole; who wants a stream is told so when the request is read."""
        raise InvalidRequest(_NOT_STREAMED, param="stream")

    def _told(self, vector: bytes) -> str | list[float]:
        if self._form == "base64":
            return base64.b64encode(vector).decode()
        return list(struct.unpack(f"<{self._size}f", vector))


def _inputs(given: Any) -> list[bytes]:
    """Return what is to be embedded as bytes: a text, several, or token numbers in place of one or several."""
    items = [given] if isinstance(given, str) or _are_tokens(given) else given
    if not isinstance(items, list) or not 1 <= len(items) <= _MOST_INPUTS:
        raise InvalidRequest(f"'input' must be a text or a list of 1 to {_MOST_INPUTS} texts.", param="input")
    for item in items:
        if not item or not (isinstance(item, str) or _are_tokens(item)):
            raise InvalidRequest("'input' must hold texts or token numbers, none of them empty.", param="input")
    return [item.encode() if isinstance(item, str) else orjson.dumps(item) for item in items]


def _are_tokens(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(type(token) is int for token in item)


def _vector(content: bytes, size: int) -> bytes:
    """Return ``size`` floats of four bytes, the lowest byte first, whose squares add up to 1."""
    digest = hashlib.shake_256(content).digest(size * 2)
    # Halves between whole numbers, so that no vector is zero.
    numbers = [number + 0.5 for number in struct.unpack(f"<{size}h", digest)]
    length = math.sqrt(sum(number * number for number in numbers))
    return struct.pack(f"<{size}f", *[number / length for number in numbers])
