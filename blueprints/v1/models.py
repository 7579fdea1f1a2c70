"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

import orjson
from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from services.gateway import catalogue
from services.permissions import Scope


@bp.get("/models")
@bearer_required(Scope.MODELS_READ)
def list_models() -> Response:
    return _json({"object": "list", "data": catalogue.models(current_call().key)})


# OpenRouter's models have a slash in their name.
@bp.get("/models/<path:model_id>")
@bearer_required(Scope.MODELS_READ)
def get_model(model_id: str) -> Response:
    return _json(catalogue.model(current_call().key, model_id))


def _json(value: dict[str, object]) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")
