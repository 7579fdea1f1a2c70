"""The Plan page: plan, limits, the operator's words, what was asked for; and Contact sales away from the gate."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.guards import current_actor, current_role, current_workspace, role_required
from blueprints.request_form import RequestForm, limited
from services import access_requests
from services.access_requests import AlreadyDecided
from services.members import owners_of
from services.parts import parts
from services.permissions import Role

bp = Blueprint("plan", __name__)


@bp.get("/plan")
@role_required("viewer")
def show() -> str:
    workspace, plans, role = current_workspace(), parts().plans, current_role()
    page = request.args.get("page", 1, type=int)
    return render_template(
        "plan/show.html",
        plan=plans.plan_of(workspace),
        offer=plans.first_with_api_access,
        limit=plans.requests_per_minute(workspace),
        plan_words=workspace.plan_words,
        has_access=plans.has_api_access(workspace),
        open_request=access_requests.open_of(workspace),
        history=access_requests.history_of(workspace, page) if role.includes(Role.ADMIN) else None,
        plan_title=lambda name: plans.plan_named(name).title,
        may_ask=role is Role.OWNER,
        owners=owners_of(workspace),
    )


@bp.route("/plan/request", methods=["GET", "POST"])
@limited
@role_required("owner")
def ask() -> str | Response | tuple[str, int]:
    workspace, plans = current_workspace(), parts().plans
    form = RequestForm()
    if form.validate_on_submit():
        if form.send():
            return redirect(url_for("plan.show"), 303)
    elif access_requests.open_of(workspace):
        return redirect(url_for("plan.show"), 303)
    page = render_template(
        "plan/ask.html", form=form, plan=plans.plan_of(workspace), has_access=plans.has_api_access(workspace)
    )
    return page, 422 if form.errors else 200


@bp.post("/plan/request/<request_id>/withdraw")
@role_required("owner")
def withdraw(request_id: str) -> Response:
    try:
        withdrawn = access_requests.withdraw(current_workspace(), request_id, actor=current_actor())
    except AlreadyDecided as error:
        flash(error.message, "warn")
    else:
        flash(f"Request {withdrawn.number} is withdrawn.")
    has_access = parts().plans.has_api_access(current_workspace())
    return redirect(url_for("plan.show" if has_access else "keys.index"), 303)
