"""``GET /v1/audit``: what was done in the workspace, by whom and from where.

A publishable key stands in web pages for everybody to read, so it is told of nobody's name, address and client.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from flask import Response, request

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import cursor_after, place_in
from models import AuditEvent
from services import audit
from services.audit import Wanted
from services.errors import InvalidRequest
from services.json_input import read_moment
from services.permissions import Scope

USUAL_LIMIT, MOST = 50, 100
_FILTERS = ("actor", "action", "object", "from", "to")
_LONGEST = 100
_MOST_DIGITS = 9


@bp.get("/audit")
@bearer_required(Scope.AUDIT_READ)
def list_audit() -> Response:
    _refuse_unknown()
    wanted = _wanted()
    found, has_more = audit.page(current_workspace(), wanted, limit=_limit(), before=_before())
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


def _refuse_unknown() -> None:
    """A misspelt filter must not be ignored. Raises InvalidRequest."""
    for name, values in request.args.lists():
        if name not in (*_FILTERS, "limit", "cursor"):
            raise InvalidRequest(f"There is no parameter '{name[:60]}'.", param=name[:60])
        if len(values) > 1:
            raise InvalidRequest(f"Give '{name}' once.", param=name)


def _wanted() -> Wanted:
    for name in ("actor", "action", "object"):
        if len(request.args.get(name, "")) > _LONGEST:
            raise InvalidRequest(f"Use at most {_LONGEST} characters.", param=name)
    since, until = _moment("from"), _moment("to")
    if since and until and since >= until:
        raise InvalidRequest("'from' must be before 'to'.", param="from")
    return Wanted(request.args.get("actor"), request.args.get("action"), request.args.get("object"), since, until)


def _moment(name: str) -> datetime | None:
    text = request.args.get(name)
    if text is None:
        return None
    found = _day(text) or read_moment(text)
    if found is None or not 1971 <= found.year <= 9990:
        raise InvalidRequest("Give a day like 2026-11-20, or a moment like 2026-11-20T14:00:00Z.", param=name)
    return found


def _day(text: str) -> datetime | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _limit() -> int:
    text = request.args.get("limit", str(USUAL_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise InvalidRequest(f"Give a number from 1 to {MOST}.", param="limit")
    return int(text)


def _before() -> int | None:
    cursor = request.args.get("cursor")
    if cursor is None:
        return None
    try:
        place = place_in(cursor)
    except ValueError:
        place = ""
    if not (place.isdigit() and len(place) <= _MOST_DIGITS):
        raise InvalidRequest("This cursor is none of ours. Begin without one.", param="cursor")
    return int(place)
