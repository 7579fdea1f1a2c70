"""For the machine in front: is this process alive?"""

from __future__ import annotations

from flask import Blueprint, Response

from blueprints.guards import public

bp = Blueprint("health", __name__)


@bp.get("/healthz")
@public("a load balancer asks, and it tells nothing")
def alive() -> Response:
    return Response("ok\n", content_type="text/plain")
