"""A call from the caller's bytes to the answer's bytes: simulated for a test key, relayed for a live one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from services import provider_keys
from services.errors import InvalidRequest, PortalError, ProviderFailed
from services.gateway import estimate, faults, sse
from services.gateway.endpoints import Endpoint, Seen
from services.gateway.routing import Route, routes
from services.gateway.simulator import PROVIDER, simulate
from services.gateway.stream import Stream
from services.gateway.upstream import Answer, Unreachable
from services.json_input import read_object
from services.metering import Call
from services.parts import parts
from services.secret import Secret


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the caller: bytes at once, or a stream that must be closed."""

    status: int
    content_type: str
    body: bytes | Stream


def answer(call: Call, endpoint: Endpoint, body: bytes) -> Reply:
    """Answer a request of one of the ENDPOINTS. Raises InvalidRequest or ProviderFailed."""
    request = read_object(body)
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("You must provide a 'model' parameter.", param="model")
    call.model = model
    call.streamed = endpoint.note is not None and request.get("stream") is True
    if call.key.environment == "test":
        return _simulate(call, endpoint, request)
    return _relay(call, endpoint, request, body)


def _simulate(call: Call, endpoint: Endpoint, request: dict[str, Any]) -> Reply:
    simulation = simulate(endpoint.name, request, created=int(time.time()))
    call.provider = PROVIDER
    call.input_tokens, call.output_tokens = simulation.input_tokens, simulation.output_tokens
    if not call.streamed:
        return Reply(200, "application/json", orjson.dumps(simulation.complete()))
    reader = sse.StreamReader(endpoint)
    stream = Stream(simulation.stream(), call, reader, close_source=lambda: None, count=lambda seen: None)
    return Reply(200, sse.CONTENT_TYPE, stream)


def _relay(call: Call, endpoint: Endpoint, request: dict[str, Any], body: bytes) -> Reply:
    tools = parts()
    connected = provider_keys.connected(call.key.workspace_id)
    route = routes(request["model"], connected, tools.providers)[0]
    call.provider, call.provider_model = route.provider.name, route.model
    key = provider_keys.unseal(connected[route.provider.name])
    try:
        url = route.provider.url("/" + endpoint.name)
        found = tools.upstream.send("POST", url, key, _body_for(route, request, body))
    except Unreachable as error:
        raise faults.unreachable(route.provider, error.reason) from error
    if found.status != 200:
        raise _refusal(route, found, key)
    if call.streamed and found.content_type.startswith(sse.CONTENT_TYPE):
        return _streamed(call, endpoint, request, found)
    return _whole(call, endpoint, request, route, found)


def _streamed(call: Call, endpoint: Endpoint, request: dict[str, Any], found: Answer) -> Reply:
    asked_tokens = estimate.input_tokens(endpoint, request)

    def count(seen: Seen) -> None:
        _count(call, endpoint, seen.usage, asked_tokens, seen.text_bytes)

    stream = Stream(found.chunks(), call, sse.StreamReader(endpoint), close_source=found.close, count=count)
    return Reply(200, found.content_type, stream)


def _count(call: Call, endpoint: Endpoint, report: Any, asked_tokens: int, written_bytes: int) -> None:
    """Take over the counts that the provider told, and estimate those that it did not."""
    usage = endpoint.usage_of(report)
    call.estimated = usage.input_tokens is None or usage.output_tokens is None
    call.input_tokens = asked_tokens if usage.input_tokens is None else usage.input_tokens
    call.output_tokens = estimate.tokens(written_bytes) if usage.output_tokens is None else usage.output_tokens
    call.cached_input_tokens = usage.cached_input_tokens


def _body_for(route: Route, request: dict[str, Any], body: bytes) -> bytes:
    """Return the caller's own bytes, unless the model has another name at this provider."""
    return body if route.model == request["model"] else orjson.dumps(request | {"model": route.model})


def _whole(call: Call, endpoint: Endpoint, request: dict[str, Any], route: Route, found: Answer) -> Reply:
    try:
        content = found.read()
        told = orjson.loads(content)
        report = told.get("usage")
    except Unreachable as error:
        raise faults.unreachable(route.provider, error.reason) from error
    except (orjson.JSONDecodeError, AttributeError) as error:
        raise ProviderFailed(f"{route.provider.title} answered with something that is not JSON.") from error
    _count(call, endpoint, report, estimate.input_tokens(endpoint, request), endpoint.written_bytes(told))
    return Reply(200, found.content_type, content)


def _refusal(route: Route, answer: Answer, key: Secret) -> PortalError:
    try:
        content = answer.read(faults.MOST_BYTES)
    except Unreachable:
        content = b""
    return faults.refusal(route.provider, answer.status, answer.retry_after, content, key)
