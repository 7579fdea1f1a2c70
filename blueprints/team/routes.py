"""The list of members, their roles, and how one is removed."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.forms import KeysForm
from blueprints.guards import (
    current_actor,
    current_person,
    current_role,
    current_workspace,
    recently_proved,
    role_required,
)
from blueprints.presenters import key_views
from blueprints.team import bp
from blueprints.team.forms import ROLE_HINTS
from models import Membership
from models.base import now
from services import invitations, members
from services.errors import InvalidInput, PermissionRefused
from services.permissions import MATRIX, Role

Answer = str | Response | tuple[str, int]


@bp.get("")
@role_required("viewer")
def index() -> str:
    return _list_page()


@bp.post("/members/<user_id>/role")
@role_required("admin")
@recently_proved
def change_role(user_id: str) -> Answer:
    workspace = current_workspace()
    try:
        membership = members.change_role(workspace, user_id, request.form.get("role", ""), actor=current_actor())
    except InvalidInput as error:
        return _list_page(user_id, " ".join(error.fields.values())), 422
    role = Role(membership.role)
    flash(f"{membership.user.display_name} is now {role.article} {role.value}.")
    return redirect(url_for("team.index"), 303)


@bp.route("/members/<user_id>/remove", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def remove(user_id: str) -> Answer:
    workspace, person = current_workspace(), current_person()
    membership = members.get(workspace, user_id)
    if user_id == person.id:
        return redirect(url_for("workspace.leave"), 303)
    if not members.may_manage(current_role(), Role(membership.role)):
        raise PermissionRefused("Only owners can make or unmake owners.")
    name, owned = membership.user.display_name, members.keys_of(workspace, user_id)
    form = KeysForm(owned, members.heirs_of(workspace, user_id), usual=person.id)
    if form.validate_on_submit():
        try:
            members.remove(workspace, user_id, actor=current_actor(), heir_id=form.heir_id())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"{name} is no longer a member.")
            return redirect(url_for("team.index"), 303)
    views = key_views(workspace, owned, role=current_role(), user_id=person.id)
    page = render_template("team/remove.html", form=form, membership=membership, name=name, keys=views)
    return page, 422 if form.errors else 200


def _list_page(wrong_row: str | None = None, fault: str = "") -> str:
    workspace, role = current_workspace(), current_role()
    manages = role.includes(Role.ADMIN)
    return render_template(
        "team/index.html",
        rows=[_row(membership, role) for membership in members.of_workspace(workspace)],
        pending=invitations.pending(workspace),
        manages=manages,
        me=current_person().id,
        offered=members.assignable(role),
        role_hints=ROLE_HINTS,
        matrix=MATRIX,
        roles=list(Role),
        wrong_row=wrong_row,
        fault=fault,
        now=now(),
    )


def _row(membership: Membership, role: Role) -> tuple[Membership, bool]:
    """Return a member with whether the person who looks may change them."""
    return membership, members.may_manage(role, Role(membership.role))
