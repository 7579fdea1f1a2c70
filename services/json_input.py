"""Reading the JSON of a stranger: strict, bounded, and once."""

from __future__ import annotations

from typing import Any

import orjson

from services.errors import InvalidRequest

DEEPEST = 64


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``. Raises InvalidRequest for anything else, NaN and deep nesting included."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    # Only a body with that many brackets can be that deep; most have far fewer.
    if body.count(b"{") + body.count(b"[") > DEEPEST and _depth(value) > DEEPEST:
        raise InvalidRequest(f"The body is nested more than {DEEPEST} levels deep.", code="invalid_json")
    return value


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(item, dict):
            waiting.extend((part, level + 1) for part in item.values() if isinstance(part, dict | list))
        elif isinstance(item, list):
            waiting.extend((part, level + 1) for part in item if isinstance(part, dict | list))
    return deepest
