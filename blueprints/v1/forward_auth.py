"""``/v1/auth``: a reverse proxy asks whether to let a call through to a service of the workspace."""

from __future__ import annotations

import re
from urllib.parse import quote

from flask import Response, request

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.objects import empty_response
from services.errors import InvalidRequest

# RFC 6749, section 3.3: what a scope is written with.
SCOPE_PATTERN = r"[!#-\[\]-~]{1,60}"
_SCOPE = re.compile(SCOPE_PATTERN)


def _asked_scope() -> str | None:
    """Return the scope that the proxy asks for, None for any key or when it is none: the view refuses that, since the
    key is judged first."""
    given = request.args.getlist("scope")
    return given[0] if len(given) == 1 and _SCOPE.fullmatch(given[0]) else None


@bp.route("/auth", methods=["GET", "POST"])
@bearer_required(_asked_scope)
def forward_auth() -> Response:
    """Say yes with no body, and who it is in headers; the name percent-encoded as UTF-8.

    What cannot be a scope is refused: a guard with a slip of the pen must not stand open. Raises InvalidRequest.
    """
    if "scope" in request.args and _asked_scope() is None:
        raise InvalidRequest("Give one scope, such as ?scope=tasks:write.", param="scope")
    key = current_call().key
    response = empty_response()
    response.headers["X-Arka-Key-Id"] = key.key_id
    response.headers["X-Arka-Key-Name"] = quote(key.name, safe="")
    response.headers["X-Arka-Workspace"] = key.workspace_slug
    response.headers["X-Arka-Scopes"] = " ".join(key.scopes)
    response.headers["X-Arka-Environment"] = key.environment
    return response
