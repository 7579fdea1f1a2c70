"""Asking the providers that serve a model, one after another, until one answers.

Nothing has reached the caller yet, so whatever a provider does can be made good by another: a time-out, a failed
connection, a status of 5xx or 429, a refused provider key, an answer that breaks off or is none. When no provider is
left, the one with the shortest wait is asked again, a bounded number of times.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from services import metrics, provider_keys, stopping
from services.errors import PortalError
from services.gateway import bodies, faults, sse
from services.gateway.endpoints import Endpoint
from services.gateway.provider_answers import RATE_LIMITED, UNREACHABLE, VALID, error_in, state_seen, words_of
from services.gateway.routing import Route
from services.gateway.upstream import Answer, TooLarge, Unreachable
from services.metering import Call
from services.parts import Parts, parts
from services.provider_keys import Sealed
from services.secret import Secret

_RETRY_SECONDS = 0.5
# Whoever has to wait longer is better served by the next try of the caller's own.
_MOST_RETRY_SECONDS = 5.0
_ABOUT_THE_REQUEST = {400, 403, 404, 409, 413, 422}
_PASSED_ON = ("openai-processing-ms", "openai-version")
_LONGEST_HEADER = 100
_JSON = "application/json"


class Question(NamedTuple):
    """What is to be asked: the caller's body, and what it holds. ``headers`` are those that may be passed on."""

    endpoint: Endpoint
    request: dict[str, Any]
    body: bytes
    streamed: bool
    headers: Mapping[str, str]

    def body_for(self, route: Route, *, asks_for_usage: bool) -> bytes:
        body = bodies.with_model(self.body, self.request, route.model)
        return bodies.asking_for_usage(body) if asks_for_usage else body

    def may_ask_for_usage(self, route: Route) -> bool:
        """Whether usage is to be asked for on behalf of a caller who did not mention it."""
        wanted = self.streamed and self.endpoint.usage_on_request and route.provider.usage_on_request
        return wanted and "stream_options" not in self.request


class Told(NamedTuple):
    """An answer that came whole."""

    content: bytes
    answer: dict[str, Any]
    headers: dict[str, str]


class Begun(NamedTuple):
    """A stream whose first bytes have come. It must be closed."""

    answer: Answer
    chunks: Iterator[bytes]
    # We asked for the report of usage, the caller did not.
    without_usage: bool
    headers: dict[str, str]
    # Which the provider was asked with, and which its words must not hold.
    key: Secret | None


class _Failed(Exception):
    """One provider did not answer the question.

    ``elsewhere``: another may do better. ``again_in``: after so many seconds, so may this one.
    """

    def __init__(self, error: PortalError, *, elsewhere: bool, again_in: float | None = None) -> None:
        self.error = error
        self.elsewhere = elsewhere
        self.again_in = again_in
        super().__init__(error.message)


def ask(call: Call, question: Question, routes: Sequence[Route], keys: dict[str, Sealed]) -> Told | Begun:
    """Return the first answer. Raises the failure of the provider that was to be preferred, or the one that ended it.

    ``keys`` are the workspace's, by provider. The call is told which provider it came to.
    """
    tools = parts()
    until = time.monotonic() + tools.provider_total_seconds
    failures: dict[str, _Failed] = {}
    for route in _in_turn(routes, failures, tools.provider_retries, until):
        call.provider, call.provider_model = route.provider.name, route.model
        try:
            return _Attempt(tools, call, question, route, keys, until).carry_out()
        except _Failed as failed:
            failures[route.provider.name] = failed
            if not failed.elsewhere:
                raise failed.error from failed
    route = routes[0]
    call.provider, call.provider_model = route.provider.name, route.model
    error = failures[route.provider.name].error
    if len(failures) > 1:
        error.details["tried"] = [{"provider": name, "code": one.error.code} for name, one in failures.items()]
    raise error from failures[route.provider.name]


def _in_turn(routes: Sequence[Route], failures: Mapping[str, _Failed], retries: int, until: float) -> Iterator[Route]:
    """Yield every route, then, after its wait, the one that may be tried again soonest."""
    yield from routes
    for _ in range(retries):
        waits = [(wait, route) for route in routes if (wait := failures[route.provider.name].again_in) is not None]
        wait, route = min(waits, key=lambda pair: pair[0], default=(math.inf, None))
        if route is None or time.monotonic() + wait >= until:
            return
        time.sleep(wait)
        yield route


class _Attempt:
    """One question to one provider."""

    def __init__(
        self, tools: Parts, call: Call, question: Question, route: Route, keys: dict[str, Sealed], until: float
    ) -> None:
        self._tools = tools
        self._workspace_id = call.key.workspace_id
        self._question = question
        self._route = route
        self._provider = route.provider
        self._keys = keys
        self._sealed = keys.get(route.provider.name)
        self._until = until
        # A server without keys is one way for all.
        self._breaker = self._sealed.row_id if self._sealed else route.provider.name

    def carry_out(self) -> Told | Begun:
        """Return the answer. Raises _Failed."""
        stopping.check()
        key = self._key()
        pause = self._tools.breakers.refused_for(self._breaker)
        if pause:
            raise _Failed(faults.left_alone(self._provider, pause), elsewhere=True)
        try:
            return self._answer(key)
        except Unreachable as error:
            # It was us who broke it off, not the provider.
            stopping.check()
            self._tools.breakers.failed(self._breaker)
            self._note(UNREACHABLE, error.reason)
            # A call that was taken and then not answered in time may still be at work: another provider may be asked,
            # but not this one, which would then do the same work twice and bill it twice.
            again_in = None if error.late and error.taken else _RETRY_SECONDS
            raise _Failed(
                faults.unreachable(self._provider, error.reason), elsewhere=True, again_in=again_in
            ) from error
        except TooLarge as error:
            raise _Failed(faults.no_answer(self._provider, "too large"), elsewhere=False) from error

    def _key(self) -> Secret | None:
        try:
            return provider_keys.unseal(self._sealed) if self._sealed else None
        except PortalError as error:
            raise _Failed(error, elsewhere=True) from error

    def _answer(self, key: Secret | None) -> Told | Begun:
        asks_for_usage = self._question.may_ask_for_usage(self._route)
        answer = self._send(key, asks_for_usage=asks_for_usage)
        if answer.status in (400, 422) and asks_for_usage:
            content = _content(answer)
            if b"stream_options" not in content and b"include_usage" not in content:
                raise self._refused(answer.status, answer.retry_after, content, key)
            # It does not know what we added, so it is asked as the caller did.
            asks_for_usage = False
            answer = self._send(key, asks_for_usage=False)
        if answer.status != 200:
            raise self._refused(answer.status, answer.retry_after, _content(answer), key)
        if self._question.streamed and answer.content_type.startswith(sse.CONTENT_TYPE):
            begun = _begin(answer, key, without_usage=asks_for_usage)
            self._tools.breakers.succeeded(self._breaker)
            self._note(VALID)
            return begun
        return self._whole(answer, key)

    def _send(self, key: Secret | None, *, asks_for_usage: bool) -> Answer:
        with metrics.ProviderRequest(self._provider.name) as counted:
            answer = self._tools.upstream.send(
                "POST",
                self._provider.url("/" + self._question.endpoint.name),
                key,
                self._question.body_for(self._route, asks_for_usage=asks_for_usage),
                headers=self._question.headers,
                until=self._until,
            )
            counted.status = answer.status
        return answer

    def _whole(self, answer: Answer, key: Secret | None) -> Told:
        content = answer.read()
        self._tools.breakers.succeeded(self._breaker)
        try:
            told = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise _Failed(faults.no_answer(self._provider, "not JSON"), elsewhere=True) from error
        if not isinstance(told, dict):
            raise _Failed(faults.no_answer(self._provider, "no JSON object"), elsewhere=True)
        written = self._question.endpoint.written_field or "data"
        if isinstance(told.get("error"), dict) and told.get(written) is None:
            # OpenRouter answers so when a model fails after it has begun.
            raise self._refused(_status_in(told["error"]), None, content, key)
        self._note(VALID)
        return Told(content, told, _headers(answer))

    def _refused(self, status: int, retry_after: str | None, content: bytes, key: Secret | None) -> _Failed:
        """Take note of a refusal and return it as a failure."""
        told = error_in(content)
        state = state_seen(status, told)
        if status >= 500:
            self._tools.breakers.failed(self._breaker)
        else:
            self._tools.breakers.succeeded(self._breaker)
        if state is not None:
            self._note(state, words_of(told, key) if key else None)
        error = faults.refusal(self._provider, status, retry_after, content, key)
        elsewhere = state is not None or status not in _ABOUT_THE_REQUEST
        may_pass = status >= 500 or state == RATE_LIMITED
        return _Failed(error, elsewhere=elsewhere, again_in=_wait(retry_after) if may_pass else None)

    def _note(self, state: str, words: str | None = None) -> None:
        if self._sealed is None or self._sealed.state == state:
            return
        provider_keys.note_outcome(self._workspace_id, self._sealed, state, words)
        # Should it be asked once more for this call, that begins with what was noted now.
        self._sealed = self._keys[self._provider.name] = self._sealed._replace(state=state)


def _begin(answer: Answer, key: Secret | None, *, without_usage: bool) -> Begun:
    """Wait for the first bytes of a stream: until then another provider can take its place. Raises Unreachable."""
    chunks = answer.chunks()
    try:
        first = next(chunks, b"")
        if not first:
            raise Unreachable("the connection failed")
    except BaseException:
        answer.close()
        raise
    answer.let_run()
    return Begun(answer, itertools.chain([first], chunks), without_usage, _headers(answer), key)


def _content(answer: Answer) -> bytes:
    """Return what a refusal says, as far as it came."""
    try:
        return answer.read(faults.MOST_BYTES)
    except (Unreachable, TooLarge):
        return b""


def _headers(answer: Answer) -> dict[str, str]:
    """Return the headers of an answer that may reach the caller: those on this list, and nothing of the account."""
    fitting = answer.content_type.startswith((_JSON, sse.CONTENT_TYPE))
    found = {"Content-Type": answer.content_type if fitting else _JSON}
    for name in _PASSED_ON:
        value = answer.header(name)
        if value and len(value) <= _LONGEST_HEADER and value.isascii() and value.isprintable():
            found[name] = value
    return found


def _status_in(error: dict[str, Any]) -> int:
    status = error.get("code")
    return status if isinstance(status, int) and 400 <= status <= 599 else 502


def _wait(retry_after: str | None) -> float | None:
    seconds = faults.seconds_of(retry_after)
    if seconds is None:
        return _RETRY_SECONDS
    return max(seconds, _RETRY_SECONDS) if seconds <= _MOST_RETRY_SECONDS else None
