"""A call from the caller's bytes to the answer's bytes: simulated for a test key, relayed for a live one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from services import provider_keys, spending
from services.errors import InvalidRequest
from services.gateway import attempts, brain, estimate, sse
from services.gateway.attempts import Begun, Question
from services.gateway.endpoints import Endpoint, Seen
from services.gateway.routing import Route, routes, usable
from services.gateway.simulator import PROVIDER, simulate
from services.gateway.stream import Stream
from services.json_input import read_object
from services.logs import hide_keys
from services.metering import Call
from services.parts import parts

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_OTHER_MODELS = ("models", "preset")


class Reply(NamedTuple):
    """What goes back to the caller: bytes at once, or a stream that must be closed."""

    status: int
    content_type: str
    body: bytes | Stream
    # Those of the provider that may be passed on.
    headers: Mapping[str, str] = NO_HEADERS


def answer(call: Call, endpoint: Endpoint, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer a request of one of the ENDPOINTS; ``headers`` go to the provider as they are.

    Raises InvalidRequest, ProviderFailed, and what spending limits and the simulator raise.
    """
    request = read_object(body)
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("You must provide a 'model' parameter.", param="model")
    if hide_keys(model) != model:
        raise InvalidRequest("'model' holds a key, not the name of a model. It was not sent on.", param="model")
    for name, reason in endpoint.not_offered.items():
        if request.get(name) is True:
            raise InvalidRequest(reason, param=name)
    call.model = model
    call.streamed = endpoint.note is not None and request.get("stream") is True
    if call.key.environment == "test":
        return _simulate(call, endpoint, request)
    return _relay(call, endpoint, request, body, headers or {})


def _simulate(call: Call, endpoint: Endpoint, request: dict[str, Any]) -> Reply:
    call.provider = PROVIDER
    if brain.is_alias(request["model"]):
        _choose(call, endpoint, request, brain.known_providers())
        request = request | {"model": call.model}
    simulation = simulate(endpoint.name, request, int(time.time()))
    call.input_tokens, call.output_tokens = simulation.input_tokens, simulation.output_tokens
    if not call.streamed:
        return Reply(200, "application/json", orjson.dumps(simulation.complete()))
    reader = sse.StreamReader(endpoint)
    stream = Stream(simulation.stream(), call, reader, close_source=lambda: None, count=lambda seen: None)
    return Reply(200, sse.CONTENT_TYPE, stream)


def _relay(call: Call, endpoint: Endpoint, request: dict[str, Any], body: bytes, headers: Mapping[str, str]) -> Reply:
    keys = provider_keys.connected_in(call.key.workspace_id, call.key.provider_keys)
    possible = _routes(call, endpoint, request, keys)
    limited = bool(spending.limits_of(call.key, call.started_at))
    if call.key.allowed_models or limited:
        _refuse_other_models(request)
    if limited:
        spending.hold(
            call,
            [(route.provider.name, route.model) for route in possible],
            input_tokens=estimate.most_input_tokens(endpoint, request, body),
            output_tokens=estimate.most_output_tokens(endpoint, request),
        )
        request = _with_usage(call, endpoint, request)
    if call.key.allowed_models or limited:
        # Of a name given twice we judged the last; a provider may take the first.
        body = orjson.dumps(request)
    question = Question(endpoint, request, body, call.streamed, headers)
    found = attempts.ask(call, question, possible, keys)
    if isinstance(found, Begun):
        return _streamed(call, endpoint, request, found)
    call.streamed = False
    _count(
        call,
        endpoint,
        found.answer.get("usage"),
        lambda: estimate.input_tokens(endpoint, request),
        lambda: endpoint.written_bytes(found.answer),
    )
    return Reply(200, found.headers.pop("Content-Type"), found.content, found.headers)


def _refuse_other_models(request: dict[str, Any]) -> None:
    """Raise InvalidRequest for further models to fall back on, which nobody has judged or held money for.

    https://openrouter.ai/docs/guides/routing/model-fallbacks
    """
    for name in _OTHER_MODELS:
        if request.get(name):
            raise InvalidRequest(
                f"'{name}' is not offered to a key that is restricted to models or has a spending limit.", param=name
            )


def _with_usage(call: Call, endpoint: Endpoint, request: dict[str, Any]) -> dict[str, Any]:
    """Under a spending limit a caller cannot decline the report of usage that its cost is made from."""
    options = request.get("stream_options")
    if not (call.streamed and endpoint.usage_on_request and "stream_options" in request):
        return request
    return request | {"stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True}}


def _routes(call: Call, endpoint: Endpoint, request: dict[str, Any], keys: Mapping[str, object]) -> list[Route]:
    """Return where the call may go, the first choice first."""
    providers = parts().providers
    connected = usable(keys, providers)
    if not brain.is_alias(request["model"]):
        return routes(request["model"], connected, providers)
    chosen = _choose(call, endpoint, request, connected)
    found = routes(chosen.model, connected, providers)
    return sorted(found, key=lambda route: route.provider.name != chosen.provider)


def _choose(
    call: Call, endpoint: Endpoint, request: dict[str, Any], connected: set[str] | frozenset[str]
) -> brain.Choice:
    chosen = brain.choose(request, endpoint.name, connected)
    call.requested_model, call.model, call.route_reason = request["model"], chosen.model, chosen.reason
    return chosen


def _streamed(call: Call, endpoint: Endpoint, request: dict[str, Any], found: Begun) -> Reply:
    # Now, so that a long stream does not keep a large request in memory.
    asked = estimate.input_tokens(endpoint, request)

    def count(seen: Seen) -> None:
        _count(call, endpoint, seen.usage, lambda: asked, lambda: seen.text_bytes)

    reader = sse.StreamReader(endpoint, without_usage=found.without_usage)
    stream = Stream(
        found.chunks,
        call,
        reader,
        close_source=found.answer.close,
        count=count,
        key=found.key,
        end_turn=found.answer.end_turn,
    )
    return Reply(200, found.headers.pop("Content-Type"), stream, found.headers)


def _count(
    call: Call, endpoint: Endpoint, report: Any, asked: Callable[[], int], written_bytes: Callable[[], int]
) -> None:
    """Take over the counts that the provider told, and estimate those that it did not."""
    usage = endpoint.usage_of(report)
    call.estimated = usage.input_tokens is None or usage.output_tokens is None
    call.input_tokens = asked() if usage.input_tokens is None else usage.input_tokens
    call.output_tokens = estimate.tokens(written_bytes()) if usage.output_tokens is None else usage.output_tokens
    call.cached_input_tokens = usage.cached_input_tokens
