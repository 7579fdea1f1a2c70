"""Calls as the lines of a CSV file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.money import as_usd
from services.usage import cost_is_unknown


def _cost(call: Any) -> str | None:
    if call.cost_nano_usd is not None:
        return as_usd(call.cost_nano_usd)
    return "unknown" if cost_is_unknown(call) else None


def _key(call: Any) -> str:
    return call.key_name if call.api_key_id else "Playground"


def _plain(name: str) -> Callable[[Any], Any]:
    return lambda call: getattr(call, name)


COLUMNS: dict[str, Callable[[Any], Any]] = {
    "started_at": _plain("started_at"),
    "request_id": _plain("request_id"),
    "key_id": _plain("api_key_id"),
    "key": _key,
    "environment": _plain("environment"),
    "endpoint": _plain("endpoint"),
    "requested_model": _plain("requested_model"),
    "model": _plain("model"),
    "provider": _plain("provider"),
    "status": _plain("status"),
    "code": _plain("code"),
    "streamed": _plain("streamed"),
    "duration_ms": _plain("duration_ms"),
    "input_tokens": _plain("input_tokens"),
    "cached_input_tokens": _plain("cached_input_tokens"),
    "output_tokens": _plain("output_tokens"),
    "estimated": _plain("estimated"),
    "cost_usd": _cost,
    "price_version": _plain("price_version"),
    "address": _plain("address"),
    "client": _plain("client"),
}
