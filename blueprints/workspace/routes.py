"""Workspaces: choose the one to look at, make another, its settings, leave it, delete it."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.forms import KeysForm, stripped
from blueprints.guards import (
    current_actor,
    current_person,
    current_role,
    current_session,
    current_workspace,
    recently_proved,
    role_required,
    signed_in,
)
from blueprints.presenters import key_views
from blueprints.workspace.forms import DeleteForm, NewWorkspaceForm, SettingsForm
from extensions import limiter
from services import keys, members, provider_keys, workspace_end, workspaces
from services.errors import InvalidInput
from services.parts import parts
from services.permissions import Role

bp = Blueprint("workspace", __name__)

Answer = str | Response | tuple[str, int]


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


@bp.route("/workspaces/new", methods=["GET", "POST"])
@limiter.limit("20/hour", methods=["POST"])
@signed_in
def new() -> Answer:
    form = NewWorkspaceForm()
    if form.validate_on_submit():
        try:
            workspace = workspaces.open_another(form.name.data or "", owner=current_person(), actor=current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            workspaces.look_at(current_session(), workspace.id)
            flash(f"{workspace.name} is ready. You are its owner.")
            return redirect(url_for("overview.show"), 303)
    return render_template("workspace/new.html", form=form), 422 if form.errors else 200


@bp.get("/workspace")
@role_required("viewer")
def show() -> str:
    return _settings_page(SettingsForm(current_workspace()))


@bp.post("/workspace")
@role_required("admin")
def save() -> Answer:
    workspace = current_workspace()
    form = SettingsForm(workspace)
    if form.validate_on_submit():
        try:
            workspaces.change(
                workspace, name=form.name.data or "", time_zone=form.time_zone.data or "", actor=current_actor()
            )
        except InvalidInput as error:
            form.take(error)
        else:
            flash("The workspace is saved.")
            return redirect(url_for("workspace.show"), 303)
    return _settings_page(form), 422


@bp.route("/workspace/leave", methods=["GET", "POST"])
@role_required("viewer")
def leave() -> Answer:
    workspace, person = current_workspace(), current_person()
    owned, heirs = members.keys_of(workspace, person.id), members.heirs_of(workspace, person.id)
    last_owner = current_role() is Role.OWNER and len(members.owners_of(workspace)) == 1
    form = KeysForm(owned, heirs, usual=heirs[0].user_id if heirs else None)
    if form.validate_on_submit():
        try:
            members.remove(workspace, person.id, actor=current_actor(), heir_id=form.heir_id())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"You have left {workspace.name}.")
            return redirect(url_for("workspace.switcher"), 303)
    views = key_views(workspace, owned, role=current_role(), user_id=person.id)
    page = render_template(
        "workspace/leave.html", form=form, keys=views, last_owner=last_owner, sentence=members.LAST_OWNER
    )
    return page, 422 if form.errors else 200


@bp.route("/workspace/delete", methods=["GET", "POST"])
@role_required("owner")
@recently_proved
def delete() -> Answer:
    workspace = current_workspace()
    form = DeleteForm(workspace)
    if form.validate_on_submit():
        name = workspace.name
        workspace_end.delete_workspace(workspace.id, actor=current_actor())
        flash(f"{name} is deleted.")
        return redirect(url_for("workspace.switcher"), 303)
    living = keys.living(workspace)
    facts = {
        "members": len(members.of_workspace(workspace)),
        "keys": len(living),
        "used": bool(keys.last_uses(workspace)),
        "providers": len(provider_keys.of_workspace(workspace)),
    }
    return render_template("workspace/delete.html", form=form, **facts), 422 if form.errors else 200


def _settings_page(form: SettingsForm) -> str:
    return render_template(
        "workspace/show.html", form=form, workspace=current_workspace(), may_save=current_role().includes(Role.ADMIN)
    )
