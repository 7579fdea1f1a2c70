"""Choose the workspace to look at."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.forms import stripped
from blueprints.guards import current_person, current_session, signed_in
from services import workspaces
from services.parts import parts

bp = Blueprint("workspace", __name__)


@bp.get("/workspaces")
@signed_in
def switcher() -> str:
    memberships = workspaces.memberships_of(current_person())
    return render_template("workspace/switcher.html", memberships=memberships, plans=parts().plans)


@bp.post("/workspaces")
@signed_in
def choose() -> Response:
    login_session = current_session()
    workspaces.look_at(login_session, stripped(request.form.get("workspace")))
    membership = workspaces.find_membership(login_session.user_id, login_session.workspace_id)
    if membership is not None:
        flash(f"You are now in {membership.workspace.name}.")
    return redirect(url_for("overview.show"), 303)
