"""What a provider is sent: the caller's own bytes, with no more changed than must be."""

from __future__ import annotations

import re
from typing import Any

import orjson

_USAGE_WANTED = b'"stream_options":{"include_usage":true},'


def asking_for_usage(body: bytes) -> bytes:
    """Return a request for a stream that asks for its usage as well. The object must hold something already."""
    start = body.index(b"{") + 1
    return body[:start] + _USAGE_WANTED + body[start:]


def with_model(body: bytes, request: dict[str, Any], model: str) -> bytes:
    """Return the body with another model; ``request`` is what it holds.

    Only the name is exchanged where it can be found without doubt; otherwise the object is written anew.
    """
    if request.get("model") == model:
        return body
    wanted = request | {"model": model}
    named = rb'("model"\s*:\s*)' + re.escape(orjson.dumps(request.get("model")))
    places = list(re.finditer(named, body))
    if len(places) == 1:
        place = places[0]
        exchanged = body[: place.start()] + place[1] + orjson.dumps(model) + body[place.end() :]
        # The one place may have been another object's.
        if orjson.loads(exchanged) == wanted:
            return exchanged
    return orjson.dumps(wanted)
