"""``GET /v1/me``: what the key that asks is and may do."""

from __future__ import annotations

from flask import Response, g

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required
from blueprints.v1.caller import current_key, current_workspace
from blueprints.v1.objects import json_response, moment, rate_object
from services import keys
from services.restrictions import as_dict


@bp.get("/me")
@bearer_required(None)
def show_me() -> Response:
    workspace = current_workspace()
    key = current_key(workspace)
    return json_response(
        {
            "id": key.id,
            "object": "key",
            "name": key.name,
            "kind": key.kind,
            "environment": key.environment,
            "scopes": key.scopes,
            "expires_at": moment(key.expires_at),
            "restrictions": as_dict(keys.restrictions_of(key)),
            "workspace": {"slug": workspace.slug, "name": workspace.name, "plan": workspace.plan},
            "ratelimit": rate_object(g.verdict.rate),
        }
    )
