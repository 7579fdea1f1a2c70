"""``GET /v1/members``: who belongs to the workspace.

A publishable key stands in web pages for everybody to read, so it is told nobody's address, name or habits.
"""

from __future__ import annotations

from flask import Response, request

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import cursor_after, place_in
from models import Membership
from services import members
from services.errors import InvalidRequest, NotFound
from services.permissions import Scope

USUAL_MEMBERS, MOST_MEMBERS = 50, 100


@bp.get("/members")
@bearer_required(Scope.MEMBERS_READ)
def list_members() -> Response:
    """A page of members, those who joined first in front."""
    unknown = sorted(set(request.args) - {"limit", "cursor"})
    if unknown:
        raise InvalidRequest("There is no such parameter.", param=unknown[0][:60])
    try:
        found, has_more = members.page(current_workspace(), limit=_limit(), after=_after())
    except (NotFound, ValueError):
        raise InvalidRequest("This cursor is none of this list.", param="cursor") from None
    return json_response(
        {
            "object": "list",
            "data": [_member(membership) for membership in found],
            "has_more": has_more,
            "next_cursor": cursor_after(found[-1].user_id) if has_more else None,
        }
    )


def _member(membership: Membership) -> dict[str, object]:
    private = current_call().key.kind == "publishable"
    user = membership.user
    return {
        "id": membership.user_id,
        "object": "member",
        "role": membership.role,
        "email": None if private else user.email,
        "name": None if private else user.name,
        "joined_at": moment(membership.created_at),
        "last_seen_at": None if private else moment(membership.last_seen_at),
    }


def _limit() -> int:
    text = request.args.get("limit", str(USUAL_MEMBERS))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= number <= MOST_MEMBERS:
        raise InvalidRequest(f"Give a number from 1 to {MOST_MEMBERS}.", param="limit")
    return number


def _after() -> str | None:
    cursor = request.args.get("cursor")
    return None if cursor is None else place_in(cursor)
