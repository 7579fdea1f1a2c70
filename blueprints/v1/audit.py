"""``GET /v1/audit``: what was done in the workspace, by whom and from where.

A publishable key stands in web pages for everybody to read, so it is told of nobody's name, address and client.
"""

from __future__ import annotations

from typing import Any

from flask import Response

from blueprints.v1 import asked, bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import cursor_after
from models import AuditEvent
from services import audit
from services.audit import Wanted
from services.errors import InvalidRequest
from services.permissions import Scope

_FILTERS = ("actor", "action", "object", "from", "to")
LONGEST = 100
_MOST_DIGITS = 9


@bp.get("/audit")
@bearer_required(Scope.AUDIT_READ)
def list_audit() -> Response:
    asked.refuse_unknown((*_FILTERS, "limit", "cursor"))
    wanted = _wanted()
    found, has_more = audit.page(current_workspace(), wanted, limit=asked.limit(), before=asked.before(_MOST_DIGITS))
    return json_response(
        {
            "object": "list",
            "data": [_entry(event) for event in found],
            "has_more": has_more,
            "next_cursor": cursor_after(str(found[-1].number)) if has_more else None,
        }
    )


def _entry(event: AuditEvent) -> dict[str, Any]:
    private = current_call().key.kind == "publishable"
    return {
        "object": "audit_entry",
        "number": event.number,
        "at": moment(event.at),
        "action": event.action,
        "actor": {
            "kind": event.actor_kind,
            "id": event.actor_id,
            "name": None if private else event.actor_name,
            "address": None if private else event.address,
            "client": None if private else event.client,
        },
        "target": None if event.object_id is None else {"id": event.object_id, "name": _name(event, private)},
        "details": None if private else event.details,
    }


def _name(event: AuditEvent, private: bool) -> str | None:
    return None if private else event.object_name


# ---- What is asked for


def _wanted() -> Wanted:
    actor, action, object_id = asked.texts(("actor", "action", "object"), LONGEST)
    since, until = asked.moment("from"), asked.moment("to")
    if since and until and since >= until:
        raise InvalidRequest("'from' must be before 'to'.", param="from")
    return Wanted(actor, action, object_id, since, until)
