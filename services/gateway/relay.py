"""A chat call from the caller's bytes to the answer's bytes: simulated for a test key, relayed for a live one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from services import metrics, provider_keys
from services.errors import InvalidRequest, PortalError, ProviderFailed
from services.gateway import faults, sse
from services.gateway.routing import Route, routes
from services.gateway.simulator import PROVIDER, Simulation
from services.gateway.upstream import Answer, Unreachable
from services.json_input import read_object
from services.metering import Call
from services.parts import parts
from services.secret import Secret

CHAT_PATH = "/chat/completions"
_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the caller: bytes at once, or a stream that must be closed."""

    status: int
    content_type: str
    body: bytes | Stream


class Stream:
    """The bytes of a streamed answer. Knows no request: it works with what it was given.

    A failure after the first byte becomes a last event with an ``error`` object, never a normal end. However it ends,
    also when the caller hangs up, ``close`` runs once and ``settle`` is told the error's code or None.
    """

    def __init__(self, chunks: Iterator[bytes], call: Call, close_source: Callable[[], None]) -> None:
        self._chunks = chunks
        self._call = call
        self._close_source = close_source
        self._reader = sse.StreamReader()
        self._over = False
        self._settled = False
        self.settle: Callable[[str | None], None] = lambda code: None
        metrics.OPEN_STREAMS.add(1)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._over:
            raise StopIteration
        try:
            while not (ready := self._reader.feed(next(self._chunks))):
                pass
        except StopIteration:
            return self._last(None if self._reader.finished else _cut_off())
        except Unreachable as error:
            return self._last(_cut_off(error.reason))
        if self._reader.finished:
            # The caller may stop reading at [DONE], so the row has to be complete before it goes out.
            unsettled = self._settle_once(None)
            if unsettled is not None:
                return self._last(unsettled)
        return ready

    def _last(self, failure: PortalError | None) -> bytes:
        """End the stream: settle first, so that the row is there when the caller sees the end."""
        self._end()
        self._close_source()
        failure = self._settle_once(failure.code if failure else None) or failure
        if failure is None:
            raise StopIteration
        # The empty line ends an event that the provider began.
        return b"\n" + sse.event({"error": faults.as_event(failure, self._call.request_id)})

    def close(self) -> None:
        """Give back the provider's connection and settle the usage row."""
        if self._over:
            return
        self._end()
        self._close_source()
        self._settle_once("caller_hung_up")

    def _end(self) -> None:
        self._over = True
        metrics.OPEN_STREAMS.add(-1)

    def _settle_once(self, code: str | None) -> PortalError | None:
        """Complete the usage row; return what kept it from being completed, and then it can be tried again."""
        if self._settled:
            return None
        note_usage(self._call, self._reader.usage)
        try:
            self.settle(code)
        except PortalError as error:
            return error
        self._settled = True
        return None


def complete_chat(call: Call, body: bytes) -> Reply:
    """Answer a chat request. Raises InvalidRequest or ProviderFailed."""
    request = read_object(body)
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("You must provide a 'model' parameter.", param="model")
    call.model = model
    call.streamed = request.get("stream") is True
    if call.key.environment == "test":
        return _simulate(call, request)
    return _relay(call, request, body)


def note_usage(call: Call, usage: Any) -> None:
    """Take over the token counts a provider told, as far as they are counts."""
    if not isinstance(usage, dict):
        return
    call.input_tokens = _count(usage.get("prompt_tokens", usage.get("input_tokens")), call.input_tokens)
    call.output_tokens = _count(usage.get("completion_tokens", usage.get("output_tokens")), call.output_tokens)


def _simulate(call: Call, request: dict[str, Any]) -> Reply:
    simulation = Simulation(request, created=int(time.time()))
    call.provider = PROVIDER
    call.input_tokens, call.output_tokens = simulation.input_tokens, simulation.output_tokens
    if not call.streamed:
        return Reply(200, "application/json", orjson.dumps(simulation.complete()))
    stream = Stream(simulation.stream(), call, lambda: None)
    return Reply(200, sse.CONTENT_TYPE, stream)


def _relay(call: Call, request: dict[str, Any], body: bytes) -> Reply:
    tools = parts()
    connected = provider_keys.connected(call.key.workspace_id)
    route = routes(request["model"], connected, tools.providers)[0]
    call.provider = route.provider.name
    key = provider_keys.unseal(connected[route.provider.name])
    try:
        with metrics.provider_request(route.provider.name) as seen:
            answer = tools.upstream.send("POST", route.provider.url(CHAT_PATH), key, _body_for(route, request, body))
            seen(answer.status)
    except Unreachable as error:
        raise faults.unreachable(route.provider, error.reason) from error
    if answer.status != 200:
        raise _refusal(route, answer, key)
    if call.streamed and answer.content_type.startswith(sse.CONTENT_TYPE):
        stream = Stream(answer.chunks(), call, answer.close)
        return Reply(200, answer.content_type, stream)
    return _whole(call, route, answer)


def _body_for(route: Route, request: dict[str, Any], body: bytes) -> bytes:
    """Return the caller's own bytes, unless the model has another name at this provider."""
    return body if route.model == request["model"] else orjson.dumps(request | {"model": route.model})


def _whole(call: Call, route: Route, answer: Answer) -> Reply:
    try:
        content = answer.read()
        note_usage(call, orjson.loads(content).get("usage"))
    except Unreachable as error:
        raise faults.unreachable(route.provider, error.reason) from error
    except (orjson.JSONDecodeError, AttributeError) as error:
        raise ProviderFailed(f"{route.provider.title} answered with something that is not JSON.") from error
    return Reply(200, answer.content_type, content)


def _refusal(route: Route, answer: Answer, key: Secret) -> PortalError:
    try:
        content = answer.read(faults.MOST_BYTES)
    except Unreachable:
        content = b""
    return faults.refusal(route.provider, answer.status, answer.retry_after, content, key)


def _cut_off(reason: str = "the stream ended early") -> ProviderFailed:
    return ProviderFailed(f"The provider's answer broke off: {reason}.", code="provider_unreachable")


def _count(value: Any, otherwise: int | None) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else otherwise
