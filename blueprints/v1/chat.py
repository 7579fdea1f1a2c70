"""``POST /v1/chat/completions``."""

from __future__ import annotations

from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.body import read_body, requested_model
from services.gateway import relay
from services.permissions import Scope


@bp.post("/chat/completions")
@bearer_required(Scope.CHAT_WRITE, model=requested_model)
def create_chat_completion() -> Response:
    reply = relay.complete_chat(current_call(), read_body())
    response = Response(reply.body, reply.status, content_type=reply.content_type)
    if isinstance(reply.body, relay.Stream):
        # A proxy in front must pass each event on as it comes.
        response.headers["X-Accel-Buffering"] = "no"
    return response
