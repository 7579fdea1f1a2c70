"""What the pages of API keys share: the blueprint, who may act on a key, and the one page that shows a secret."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, make_response, render_template
from werkzeug.wrappers import Response

from blueprints.guards import current_person, current_role, current_workspace
from blueprints.presenters import KeyView, key_views
from models import ApiKey
from services import keys
from services.errors import PermissionRefused
from services.parts import parts
from services.permissions import may_extend_key, may_manage_key

bp = Blueprint("keys", __name__, url_prefix="/keys")

Answer = str | Response | tuple[str, int]


def managed(key_id: str) -> ApiKey:
    """Return a living key that this person may change. Raises NotFound, PermissionRefused."""
    key = keys.get(current_workspace(), key_id)
    require_manager(key)
    return key


def extended(key_id: str) -> ApiKey:
    """Return a living key that this person may give a new secret, new settings or a new life.

    Who may no longer make a key like it can only end it. Raises NotFound, PermissionRefused.
    """
    key = managed(key_id)
    if not may_extend_key(current_role(), current_person().id, key):
        raise PermissionRefused("This key may do more than your role. Ask an owner or admin.")
    return key


def require_manager(key: ApiKey) -> None:
    """Raise PermissionRefused unless this person may change the key."""
    if not may_manage_key(current_role(), current_person().id, key):
        raise PermissionRefused(f"This key is managed by {key.created_by_name}.")


def view_of(key: ApiKey) -> KeyView:
    return views_of([key])[0]


def views_of(shown: Sequence[ApiKey]) -> list[KeyView]:
    """Return the keys as this person sees them."""
    return key_views(current_workspace(), shown, role=current_role(), user_id=current_person().id)


def has_api_access() -> bool:
    return parts().plans.has_api_access(current_workspace())


def shown_once(minted: keys.Minted, *, rotated: bool = False) -> Response:
    """The only page that ever holds a secret; nothing between here and the reader may keep it."""
    limit = parts().plans.requests_per_minute(current_workspace())
    view, secret = view_of(minted.key), minted.secret.reveal()
    page = render_template("keys/shown_once.html", view=view, secret=secret, limit=limit, rotated=rotated)
    answer = make_response(page)
    answer.headers["Cache-Control"] = "no-store"
    return answer
