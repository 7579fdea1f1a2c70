"""The endpoints in OpenAI's form, ``POST /v1/chat/completions`` and its like, and ``POST /v1/generate``."""

from __future__ import annotations

from flask import Response

from blueprints.portal import PortalResponse, current_g, current_request
from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.body import read_body, requested_model
from blueprints.v1.objects import json_response
from services.gateway import generation, relay
from services.gateway.endpoints import ENDPOINTS
from services.gateway.stream import Stream
from services.metering import Call
from services.permissions import Scope

# Which beta of OpenAI's API is meant, and which site and app OpenRouter lists the call under. Nothing else is passed.
PASSED_ON = ("OpenAI-Beta", "HTTP-Referer", "X-Title")
_PASSED_ON = {name: "HTTP_" + name.upper().replace("-", "_") for name in PASSED_ON}
_LONGEST_HEADER = 300


@bp.post("/chat/completions", defaults={"name": "chat/completions"})
@bp.post("/completions", defaults={"name": "completions"})
@bp.post("/embeddings", defaults={"name": "embeddings"})
@bp.post("/responses", defaults={"name": "responses"})
@bearer_required(Scope.CHAT_WRITE, model=requested_model)
def relay_call(name: str) -> Response:
    reply = relay.answer(current_call(), ENDPOINTS[name], read_body(), _passed_on())
    body = [reply.body] if isinstance(reply.body, bytes) else reply.body
    response = PortalResponse(body, reply.status, reply.headers, content_type=reply.content_type)
    if isinstance(reply.body, Stream):
        # A proxy in front must pass each event on as it comes.
        response.headers["X-Accel-Buffering"] = "no"
    return response


@bp.post("/generate")
@bearer_required(Scope.CHAT_WRITE, model=lambda: requested_model() or generation.DEFAULT_MODEL)
def generate() -> Response:
    return json_response(generation.generate(current_call(), read_body(), _passed_on()))


@bp.after_app_request
def add_route_headers(response: Response) -> Response:
    """Tell which model and provider it came to, on refusals too as far as that was known."""
    call: Call | None = current_g().get("call")
    if call is not None and call.provider is not None:
        headers = response.headers
        headers.add("X-Arka-Provider", call.provider)
        headers.add("X-Arka-Model", _header_text(call.model or ""))
        if call.route_reason is not None:
            headers.add("X-Arka-Route-Reason", _header_text(call.route_reason))
    return response


def _passed_on() -> dict[str, str]:
    """Return the headers that may reach the provider; one that is no plain text is left out."""
    environ = current_request().environ
    return {
        name: value
        for name, variable in _PASSED_ON.items()
        if (value := environ.get(variable))
        and len(value) <= _LONGEST_HEADER
        and value.isascii()
        and value.isprintable()
    }


def _header_text(text: str) -> str:
    """Return what a header can hold of a text that a caller made up."""
    text = text[:_LONGEST_HEADER]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
