"""API keys: the list or the gate, a new key, its facts, what may be changed, its end."""

from __future__ import annotations

from typing import Any

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.charts import day_chart, day_in_full
from blueprints.guards import current_actor, current_role, current_workspace, recently_proved, role_required
from blueprints.keys.common import (
    Answer,
    bp,
    extended,
    has_api_access,
    managed,
    require_manager,
    shown_once,
    view_of,
    views_of,
)
from blueprints.keys.forms import ENVIRONMENT_HINTS, KIND_HINTS, ConfirmForm, DeleteForm, EditForm, KeyForm
from blueprints.presenters import audit_lines, provider_views, scope_groups, spending_standings, usage_rows
from blueprints.request_form import RequestForm, limited
from blueprints.times import current_zone
from models import ApiKey
from services import access_requests, custom_scopes, key_history, keys, rotation, usage
from services.errors import AlreadyDone, InvalidInput
from services.logs import hide_keys
from services.members import owners_of
from services.parts import parts
from services.permissions import Role, may_create_keys, may_grant, may_limit_spending

ROWS_ON_A_PAGE = 50
DAYS_SHOWN = 30
LOG_LINES = 10
STATUSES = {"active": "Active", "retiring": "Retiring", "disabled": "Disabled", "expired": "Expired"}


@bp.get("")
@role_required("viewer")
def index() -> Answer:
    workspace, plans = current_workspace(), parts().plans
    words, status = request.args.get("q", "").strip()[:100], request.args.get("status", "")
    if hide_keys(request.args.get("q", "")) != request.args.get("q", ""):
        # It must not stay in the address bar, nor come back in the page.
        return redirect(url_for("keys.index", whole_key=1), 303)
    living = keys.living(workspace)
    paused = not has_api_access()
    facts: dict[str, Any] = {
        "offer": plans.first_with_api_access,
        "providers": provider_views(workspace),
        "may_ask": current_role() is Role.OWNER,
    }
    if paused and not living:
        return _gate(RequestForm() if current_role() is Role.OWNER else None)
    found = [key for key in living if _matches(key, words, status)]
    page = max(1, request.args.get("page", 1, type=int))
    return render_template(
        "keys/index.html",
        rows=views_of(found[(page - 1) * ROWS_ON_A_PAGE : page * ROWS_ON_A_PAGE]),
        total=len(living),
        found=len(found),
        filters={"q": words, "status": status if status in STATUSES else ""},
        filtered=bool(words or status in STATUSES),
        statuses=STATUSES,
        whole_key="whole_key" in request.args,
        page=page,
        last_page=max(1, -(-len(found) // ROWS_ON_A_PAGE)),
        limit=plans.requests_per_minute(workspace),
        paused=paused,
        may_create=may_create_keys(current_role()) and not paused,
        may_read_log=current_role().includes(Role.ADMIN),
        **facts,
    )


@bp.post("")
@limited
@role_required("owner")
def ask() -> Answer:
    """Contact sales, at the gate. The page that answers shows the request, and is the key list once it is granted."""
    if has_api_access():
        # Granted while the form was open.
        return redirect(url_for("keys.index"), 303)
    form = RequestForm()
    if form.validate_on_submit() and form.send():
        return redirect(url_for("keys.index"), 303)
    return _gate(form), 422


def _gate(form: RequestForm | None) -> str:
    """The page instead of the list while there is no API access and no key: what the plan gives and how to get it."""
    workspace, plans = current_workspace(), parts().plans
    return render_template(
        "keys/gate.html",
        form=form,
        latest=access_requests.latest_of(workspace),
        offer=plans.first_with_api_access,
        providers=provider_views(workspace),
        owners=owners_of(workspace),
    )


def _matches(key: ApiKey, words: str, status: str) -> bool:
    """Tell whether a key has the words in its name or at its end, and the status if one is asked for."""
    if status == "retiring":
        fits = rotation.previous_secret(key) is not None
    else:
        fits = status not in STATUSES or key.status() == status
    ends = [secret.mask for secret in key.secrets]
    return fits and (words.casefold() in key.name.casefold() or any(end.endswith(words) for end in ends))


@bp.route("/new", methods=["GET", "POST"])
@role_required("developer")
@recently_proved
def new() -> Answer:
    workspace = current_workspace()
    if request.method == "GET" and not has_api_access():
        return redirect(url_for("keys.index"), 303)
    role = current_role()
    form = KeyForm(limit=_highest_rate(), may_limit_spending=may_limit_spending(role))
    form.offer_to(role)
    if form.validate_on_submit():
        try:
            minted = keys.mint(workspace, actor=current_actor(), role=role, **form.settings())
        except InvalidInput as error:
            form.take(error)
        except AlreadyDone as error:
            return render_template("keys/already_shown.html", key=keys.get_any(workspace, error.object_id))
        else:
            return shown_once(minted)
    hints = {"kind_hints": KIND_HINTS, "environment_hints": ENVIRONMENT_HINTS}
    offered = scope_groups(workspace, [scope for scope in custom_scopes.known(workspace) if may_grant(role, scope)])
    page = render_template("keys/new.html", form=form, scope_groups=offered, **hints)
    return page, 422 if form.errors else 200


@bp.get("/<key_id>")
@role_required("viewer")
def show(key_id: str) -> str:
    workspace = current_workspace()
    view = view_of(keys.get_any(workspace, key_id))
    report = usage.report(workspace, usage.last_days(DAYS_SHOWN, current_zone()), usage.Wanted(key_id=view.key.id))
    days = [part.start.astimezone(current_zone()).date() for part in report.parts]
    requests, failed = [[getattr(part.figures, name) for part in report.parts] for name in ("requests", "failed")]
    may_read_log = current_role().includes(Role.ADMIN)
    return render_template(
        "keys/show.html",
        view=view,
        scope_groups=scope_groups(workspace, view.key.scopes),
        calls=key_history.recent_calls(view.key),
        total=report.total,
        busiest_day=max(requests),
        days=list(zip([day_in_full(day) for day in days], zip(requests, failed, strict=True), strict=True)),
        requests_chart=day_chart(days, requests, 170),
        failures_chart=day_chart(days, failed, 106),
        by_model=usage_rows(report.by_model, lambda name: name or "No model"),
        standings=spending_standings(workspace, view.key.id),
        log=audit_lines(workspace, limit=LOG_LINES, object_id=view.key.id) if may_read_log else [],
    )


@bp.route("/<key_id>/edit", methods=["GET", "POST"])
@role_required("developer")
@recently_proved
def edit(key_id: str) -> Answer:
    key = extended(key_id)
    # A limit that the key has already may stay, whatever the plan is now.
    highest = max(_highest_rate(), key.requests_per_minute or 0)
    form = EditForm(key, limit=highest, may_limit_spending=may_limit_spending(current_role()))
    if form.validate_on_submit():
        try:
            keys.change(current_workspace(), key.id, actor=current_actor(), **form.settings())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"Key “{key.name}” is saved.")
            return redirect(url_for("keys.show", key_id=key_id), 303)
    return render_template("keys/edit.html", form=form, view=view_of(key)), 422 if form.errors else 200


@bp.route("/<key_id>/disable", methods=["GET", "POST"])
@role_required("developer")
def disable(key_id: str) -> Answer:
    key = managed(key_id)
    form = ConfirmForm()
    if form.validate_on_submit():
        keys.disable(current_workspace(), key.id, actor=current_actor())
        flash(f"Key “{key.name}” is disabled.")
        return redirect(url_for("keys.index"), 303)
    if key.disabled_at is not None:
        return redirect(url_for("keys.show", key_id=key.id), 303)
    return render_template("keys/disable.html", form=form, view=view_of(key)), 422 if form.errors else 200


@bp.post("/<key_id>/enable")
@role_required("developer")
@recently_proved
def enable(key_id: str) -> Response:
    key = extended(key_id)
    keys.enable(current_workspace(), key.id, actor=current_actor())
    flash(f"Key “{key.name}” is enabled.")
    return redirect(url_for("keys.index"), 303)


@bp.route("/<key_id>/delete", methods=["GET", "POST"])
@role_required("developer")
@recently_proved
def delete(key_id: str) -> Answer:
    workspace = current_workspace()
    key = keys.get_any(workspace, key_id)
    require_manager(key)
    if key.deleted_at is not None:
        return redirect(url_for("keys.deleted", key_id=key.id), 303)
    view = view_of(key)
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
    attempts = key_history.attempts_since_end(key)
    return render_template("keys/deleted.html", key=key, attempts=attempts, most_attempts=key_history.MOST_ATTEMPTS)


def _highest_rate() -> int:
    """The most requests per minute that a key here can be held to; without API access, what the offered plan gives."""
    plans = parts().plans
    return plans.requests_per_minute(current_workspace()) or plans.first_with_api_access.requests_per_minute
