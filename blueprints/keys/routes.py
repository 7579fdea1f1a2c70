"""API keys: the list or the gate, a new key shown once, its facts, its end."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.guards import current_actor, current_person, current_role, current_workspace, role_required
from blueprints.keys.forms import ENVIRONMENT_HINTS, KIND_HINTS, DeleteForm, KeyForm
from blueprints.presenters import KeyView, key_views, provider_views, scope_groups
from models import ApiKey
from services import keys
from services.errors import AlreadyDone, InvalidInput, PermissionRefused
from services.members import owners_of
from services.parts import parts
from services.permissions import may_create_keys, may_manage_key

bp = Blueprint("keys", __name__, url_prefix="/keys")

Answer = str | Response | tuple[str, int]
ROWS_ON_A_PAGE = 50


@bp.get("")
@role_required("viewer")
def index() -> str:
    workspace, plans = current_workspace(), parts().plans
    living = keys.living(workspace)
    paused = not plans.has_api_access(workspace)
    facts: dict[str, Any] = {
        "offer": plans.first_with_api_access,
        "providers": provider_views(workspace),
        "may_ask": current_role().value == "owner",
        "owners": owners_of(workspace),
    }
    if paused and not living:
        return render_template("keys/gate.html", **facts)
    page = max(1, request.args.get("page", 1, type=int))
    return render_template(
        "keys/index.html",
        rows=_views(living[(page - 1) * ROWS_ON_A_PAGE : page * ROWS_ON_A_PAGE]),
        total=len(living),
        page=page,
        last_page=max(1, -(-len(living) // ROWS_ON_A_PAGE)),
        limit=plans.requests_per_minute(workspace),
        paused=paused,
        may_create=may_create_keys(current_role()) and not paused,
        **facts,
    )


@bp.route("/new", methods=["GET", "POST"])
@role_required("developer")
def new() -> Answer:
    workspace = current_workspace()
    if request.method == "GET" and not parts().plans.has_api_access(workspace):
        return redirect(url_for("keys.index"), 303)
    form = KeyForm()
    if form.validate_on_submit():
        try:
            minted = keys.mint(workspace, actor=current_actor(), **form.settings())
        except InvalidInput as error:
            form.take(error)
        except AlreadyDone as error:
            return render_template("keys/already_shown.html", key=keys.get_any(workspace, error.object_id))
        else:
            return _shown_once(minted)
    hints = {"kind_hints": KIND_HINTS, "environment_hints": ENVIRONMENT_HINTS}
    page = render_template("keys/new.html", form=form, scope_groups=scope_groups(), **hints)
    return page, 422 if form.errors else 200


def _shown_once(minted: keys.Minted) -> Response:
    """The only page that ever holds a secret; nothing between here and the reader may keep it."""
    limit = parts().plans.requests_per_minute(current_workspace())
    view, secret = _view(minted.key), minted.secret.reveal()
    page = make_response(render_template("keys/shown_once.html", view=view, secret=secret, limit=limit))
    page.headers["Cache-Control"] = "no-store"
    return page


@bp.get("/<key_id>")
@role_required("viewer")
def show(key_id: str) -> str:
    view = _view(keys.get_any(current_workspace(), key_id))
    return render_template("keys/show.html", view=view, scope_groups=scope_groups(view.key.scopes))


@bp.route("/<key_id>/delete", methods=["GET", "POST"])
@role_required("developer")
def delete(key_id: str) -> Answer:
    workspace = current_workspace()
    key = keys.get_any(workspace, key_id)
    _require_manager(key)
    if key.deleted_at is not None:
        return redirect(url_for("keys.deleted", key_id=key.id), 303)
    view = _view(key)
    form = DeleteForm(key, name_needed=view.in_use)
    if form.validate_on_submit():
        keys.delete(workspace, key.id, actor=current_actor())
        return redirect(url_for("keys.deleted", key_id=key_id), 303)
    return render_template("keys/delete.html", form=form, view=view), 422 if form.errors else 200


@bp.get("/<key_id>/deleted")
@role_required("viewer")
def deleted(key_id: str) -> Answer:
    key = keys.get_any(current_workspace(), key_id)
    if key.deleted_at is None:
        return redirect(url_for("keys.show", key_id=key.id), 303)
    return render_template("keys/deleted.html", key=key)


def _require_manager(key: ApiKey) -> None:
    if not may_manage_key(current_role(), current_person().id, key):
        raise PermissionRefused(f"This key is managed by {key.created_by_name}.")


def _view(key: ApiKey) -> KeyView:
    return _views([key])[0]


def _views(shown: list[ApiKey]) -> list[KeyView]:
    return key_views(current_workspace(), shown, role=current_role(), user_id=current_person().id)
