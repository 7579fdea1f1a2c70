"""``GET /v1/members``: who belongs to the workspace, and who is invited to it.

A publishable key stands in web pages for everybody to read, so it is told nobody's address, name or habits.
"""

from __future__ import annotations

from flask import Response, request

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import cursor_after, place_in
from models import Invitation, Membership
from services import invitations, members
from services.errors import InvalidRequest, NotFound
from services.permissions import Scope

_ACTIVE, _INVITED = "active", "invited"
USUAL_MEMBERS, MOST_MEMBERS = 50, 100


@bp.get("/members")
@bearer_required(Scope.MEMBERS_READ)
def list_members() -> Response:
    """A page of members, those who joined first in front; with ``status=invited`` those who may become one."""
    unknown = sorted(set(request.args) - {"limit", "cursor", "status"})
    if unknown:
        raise InvalidRequest("There is no such parameter.", param=unknown[0][:60])
    invited = _asks_for_invited()
    try:
        page = _invitations() if invited else _members()
    except (NotFound, ValueError):
        raise InvalidRequest("This cursor is none of this list.", param="cursor") from None
    return json_response(page)


def _members() -> dict[str, object]:
    found, has_more = members.page(current_workspace(), limit=_limit(), after=_after())
    return _page([_member(one) for one in found], has_more)


def _invitations() -> dict[str, object]:
    found, has_more = invitations.page(current_workspace(), limit=_limit(), after=_after())
    return _page([_invitation(one) for one in found], has_more)


def _page(data: list[dict[str, object]], has_more: bool) -> dict[str, object]:
    next_cursor = cursor_after(str(data[-1]["id"])) if has_more else None
    return {"object": "list", "data": data, "has_more": has_more, "next_cursor": next_cursor}


def _member(membership: Membership) -> dict[str, object]:
    private = _tells_nobody()
    user = membership.user
    return {
        "id": membership.user_id,
        "object": "member",
        "status": _ACTIVE,
        "role": membership.role,
        "email": None if private else user.email,
        "name": None if private else user.name,
        "joined_at": moment(membership.created_at),
        "last_seen_at": None if private else moment(membership.last_seen_at),
    }


def _invitation(invitation: Invitation) -> dict[str, object]:
    private = _tells_nobody()
    return {
        "id": invitation.id,
        "object": "invitation",
        "status": _INVITED,
        "role": invitation.role,
        "email": None if private else invitation.email,
        "invited_by": None if private else invitation.invited_by_name,
        "invited_at": moment(invitation.created_at),
        "expires_at": moment(invitation.expires_at),
    }


def _tells_nobody() -> bool:
    return current_call().key.kind == "publishable"


def _asks_for_invited() -> bool:
    status = request.args.get("status", _ACTIVE)
    if status not in (_ACTIVE, _INVITED):
        raise InvalidRequest(f"Give {_ACTIVE} or {_INVITED}.", param="status")
    return status == _INVITED


def _limit() -> int:
    text = request.args.get("limit", str(USUAL_MEMBERS))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= number <= MOST_MEMBERS:
        raise InvalidRequest(f"Give a number from 1 to {MOST_MEMBERS}.", param="limit")
    return number


def _after() -> str | None:
    cursor = request.args.get("cursor")
    return None if cursor is None else place_in(cursor)
