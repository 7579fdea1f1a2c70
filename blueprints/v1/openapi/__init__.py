"""``GET /v1/openapi.json``: what there is under ``/v1``, for programs that make clients and pages of it."""

from __future__ import annotations

from functools import cache

import orjson
from flask import Response, current_app

from blueprints.guards import public
from blueprints.portal import PortalResponse
from blueprints.v1 import bp
from blueprints.v1.openapi.document import document


@bp.get("/openapi.json")
@public("describes what every portal of this version has, and nothing of this one")
def show_openapi() -> Response:
    response = PortalResponse([_written()], content_type="application/json")
    # An editor or a page of documentation elsewhere may read it.
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@cache
def _written() -> bytes:
    # The routes are the same in every app.
    return orjson.dumps(document(current_app))
