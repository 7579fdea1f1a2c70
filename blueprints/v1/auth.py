"""The decorator that guards an endpoint by API key: ``@bearer_required("tasks:write")``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from flask import Request, Response, current_app, g, make_response, request

from blueprints.errors import as_portal_error
from blueprints.portal import current_g, current_request
from services.errors import PortalError, RateLimited
from services.gate import REASONS, KeyFacts, Presented, Undecided, Verdict, judge, judge_again
from services.gateway.stream import Stream
from services.metering import Attempt, Call, Meter
from services.parts import parts
from services.restrictions import is_loopback
from services.secret import Secret

View = Callable[..., Any]
MARK = "required_scope"
NO_SCOPE = "any key"
ASKED_SCOPE = "the scope that the request asks for"

# RFC 6750, section 3.1: what WWW-Authenticate says besides the scheme.
_BEARER_ERRORS = {"authentication_required": None, "insufficient_scope": "insufficient_scope"}


def bearer_required(
    scope: str | Callable[[], str | None] | None, *, model: Callable[[], str | None] = lambda: None
) -> Callable[[View], View]:
    """Let in callers whose API key passes every check of the gate and holds ``scope`` (None: any key).

    A function as ``scope`` reads it from the request.
    ``model`` reads the model of the request, for keys that are restricted to some.
    Inside the view ``current_call()`` tells the key. The call becomes a row of usage before its answer goes out.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Response:
            known, asked = current_g(), current_request()
            known.api = True
            known.scope = scope() if callable(scope) else scope
            try:
                verdict = judge(presented(asked.environ), known.scope, model=model)
            except Undecided as away:
                # Its rate is told on the refusal.
                known.verdict = away.so_far
                raise
            known.verdict = verdict
            if verdict.key is not None:
                known.call = _call(verdict.key, known.request_id, asked)
            meter = Meter()
            if verdict.code is not None:
                _refuse(verdict, meter)
            return _answer(view, args, kwargs, known.call, meter)

        setattr(guarded, MARK, ASKED_SCOPE if callable(scope) else scope or NO_SCOPE)
        return guarded

    return decorate


def current_call() -> Call:
    """The call being answered; only behind ``bearer_required``."""
    call: Call = current_g().call
    return call


def confirm() -> None:
    """Look again whether the call may be answered, because its body was late.

    Raises PortalError when its key was ended meanwhile. While the gate itself reads the body, it sees to that.
    """
    known = current_g()
    before: Verdict | None = known.get("verdict")
    if before is None:
        return
    verdict = judge_again(presented(current_request().environ), known.scope, before)
    if verdict.code is not None:
        raise _refusal(verdict)


def _answer(view: View, args: Any, kwargs: Any, call: Call, meter: Meter) -> Response:
    try:
        made = view(*args, **kwargs)
        response = made if isinstance(made, Response) else make_response(made)
    except Exception as error:
        refusal = as_portal_error(error)
        meter.record(call, refusal.status, refusal.code)
        raise
    stream = response.response
    if isinstance(stream, Stream):
        try:
            meter.open(call, response.status_code)
        except BaseException:
            # Nobody is going to read it, and the provider's connection must not wait for that.
            stream.close()
            raise
        stream.settle = functools.partial(meter.settle, call)
    else:
        meter.record(call, response.status_code, None)
    return response


def _refuse(verdict: Verdict, meter: Meter) -> NoReturn:
    assert verdict.code is not None
    if verdict.key is not None:
        meter.record(current_call(), REASONS[verdict.code].status, verdict.code, verdict.details)
    elif verdict.text is not None:
        meter.record_attempt(_attempt(verdict.text))
    raise _refusal(verdict)


def _refusal(verdict: Verdict) -> PortalError:
    assert verdict.code is not None
    if verdict.code == "rate_limit_exceeded":
        return RateLimited(verdict.details["retry_after"])
    reason, headers = REASONS[verdict.code], {}
    if reason.status in (401, 403):
        headers["WWW-Authenticate"] = _challenge(verdict)
    return PortalError(
        verdict.message,
        code=verdict.code,
        status=reason.status,
        type=reason.type,
        details=verdict.details,
        headers=headers,
    )


def _challenge(verdict: Verdict) -> str:
    error = _BEARER_ERRORS.get(verdict.code or "", "invalid_token")
    words = [f'Bearer realm="{current_app.config["KEY_PREFIX"]}"']
    if error is not None:
        words.append(f'error="{error}"')
    if error == "insufficient_scope":
        words.append(f'scope="{verdict.details["required"]}"')
    return ", ".join(words)


def presented(sent: dict[str, Any]) -> Presented:
    """What a request of this WSGI environment shows of itself to the gate."""
    address = sent.get("REMOTE_ADDR") or ""
    return Presented(
        authorization=sent.get("HTTP_AUTHORIZATION"),
        x_api_key=sent.get("HTTP_X_API_KEY"),
        address=address,
        # Nobody listens on the way within a machine.
        encrypted=sent.get("wsgi.url_scheme") in ("https", "wss") or is_loopback(address),
        from_browser="HTTP_ORIGIN" in sent or "HTTP_SEC_FETCH_SITE" in sent,
        origin=sent.get("HTTP_ORIGIN"),
    )


def _endpoint(asked: Request) -> str:
    found = asked.url_rule
    rule = found.rule if found else asked.path
    return rule.removeprefix("/v1/")


def _attempt(shown: Secret) -> Attempt:
    return Attempt(
        fingerprint=parts().fingerprint_digests.digest(shown.reveal()),
        workspace_id=None,
        request_id=g.request_id,
        endpoint=_endpoint(request),
        address=request.remote_addr or "",
        client=request.headers.get("User-Agent"),
    )


def _call(key: KeyFacts, request_id: str, asked: Request) -> Call:
    sent = asked.environ
    return Call(
        request_id=request_id,
        key=key,
        endpoint=_endpoint(asked),
        address=sent.get("REMOTE_ADDR") or "",
        client=sent.get("HTTP_USER_AGENT"),
    )
