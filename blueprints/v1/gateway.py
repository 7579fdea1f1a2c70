"""The endpoints in OpenAI's form: ``POST /v1/chat/completions``, ``completions``, ``embeddings``, ``responses``."""

from __future__ import annotations

from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.body import read_body, requested_model
from services.gateway import relay
from services.gateway.endpoints import ENDPOINTS
from services.gateway.stream import Stream
from services.permissions import Scope


@bp.post("/chat/completions", defaults={"name": "chat/completions"})
@bp.post("/completions", defaults={"name": "completions"})
@bp.post("/embeddings", defaults={"name": "embeddings"})
@bp.post("/responses", defaults={"name": "responses"})
@bearer_required(Scope.CHAT_WRITE, model=requested_model)
def relay_call(name: str) -> Response:
    reply = relay.answer(current_call(), ENDPOINTS[name], read_body())
    response = Response(reply.body, reply.status, content_type=reply.content_type)
    if isinstance(reply.body, Stream):
        # A proxy in front must pass each event on as it comes.
        response.headers["X-Accel-Buffering"] = "no"
    return response
