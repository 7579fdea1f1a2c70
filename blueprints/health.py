"""For the machines around: is this process alive, can it answer calls, and what has it counted?"""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, request

from blueprints.guards import public
from services import gauges, metrics, stopping
from services.errors import AuthenticationFailed, PermissionRefused
from services.parts import parts
from services.restrictions import is_loopback
from services.secret import Secret

bp = Blueprint("health", __name__)

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# What a proxy adds; one that we were not told of hides where a request comes from.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


@bp.get("/healthz")
@public("a load balancer asks, and it tells nothing")
def alive() -> Response:
    return Response("ok\n", content_type="text/plain")


@bp.get("/readyz")
@public("a load balancer asks, and it names no address and no cause")
def ready() -> Response:
    found = parts().readiness.look()
    works = all(finding.works for finding in found.values())
    checks = {name: finding.word for name, finding in found.items()}
    if stopping.has_begun():
        works, checks = False, checks | {"server": "is stopping"}
    body = {"ready": works, "checks": checks}
    return Response(orjson.dumps(body), 200 if works else 503, content_type="application/json")


@bp.get("/metrics")
@public("Prometheus asks from the machine itself, or with a token of its own")
def tell_metrics() -> Response:
    _check_reader(parts().metrics_token)
    gauges.sample()
    return Response(metrics.text(), content_type=_METRICS_TYPE)


def _check_reader(token: Secret | None) -> None:
    if token is not None:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or Secret(shown.strip()) != token:
            raise AuthenticationFailed("Metrics need the token of ARKA_METRICS_TOKEN.", headers=_CHALLENGE)
    elif not is_loopback(request.remote_addr or "") or any(name in request.headers for name in _FORWARDED):
        raise PermissionRefused("Metrics are told to the machine itself, or with the token of ARKA_METRICS_TOKEN.")


_CHALLENGE = {"WWW-Authenticate": "Bearer"}
