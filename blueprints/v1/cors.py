"""CORS: a page may read what a publishable key was answered. Secret keys are for servers and get no such headers.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from flask import Response, current_app, request

from blueprints.portal import current_g, current_request
from blueprints.v1 import bp
from blueprints.v1.objects import empty_response
from services.metering import Call
from services.restrictions import origin_allowed

_ALLOWED_HEADERS = "Authorization, X-API-Key, Content-Type, Idempotency-Key"
_EXPOSED_HEADERS = (
    "X-Request-Id, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit, "
    "RateLimit-Policy, Idempotent-Replayed"
)
_PREFLIGHT_SECONDS = "600"


@bp.before_request
def answer_options() -> Response | None:
    """Tell the methods of an endpoint, and a browser what it asks before the call itself.

    That comes without the key, so any page may ask.
    """
    if current_request().method != "OPTIONS":
        return None
    adapter = current_app.create_url_adapter(request)
    assert adapter is not None
    methods = ", ".join(sorted(adapter.allowed_methods()))
    response = empty_response()
    response.headers["Allow"] = methods
    if "Origin" in request.headers and "Access-Control-Request-Method" in request.headers:
        _allow_origin(response)
        response.headers["Access-Control-Allow-Methods"] = methods
        response.headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
        response.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    return response


@bp.after_app_request
def open_to_the_page(response: Response) -> Response:
    """Let the page read the answer, a refusal too, if the key that was sent is publishable and for its origin."""
    call: Call | None = current_g().get("call")
    origin = current_request().environ.get("HTTP_ORIGIN")
    if call is None or origin is None or call.key.kind != "publishable":
        return response
    if origin_allowed(origin, call.key.allowed_origins):
        _allow_origin(response)
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
    return response


def _allow_origin(response: Response) -> None:
    # Never Access-Control-Allow-Credentials: a key travels in a header, and no cookie opens /v1.
    response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
    response.vary.add("Origin")
