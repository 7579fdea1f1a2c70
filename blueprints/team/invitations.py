"""Pages on which owners and admins invite."""

from __future__ import annotations

import hashlib

from flask import flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints.guards import (
    client_address,
    current_actor,
    current_person,
    current_role,
    current_session,
    current_workspace,
    recently_proved,
    role_required,
)
from blueprints.team import bp
from blueprints.team.forms import InviteForm
from extensions import limiter
from services import accounts, invitations, members
from services.errors import AlreadyDone, InvalidInput

Answer = str | Response | tuple[str, int]


def inviting_workspace() -> str:
    """The limiter's key for the workspace in whose name mail is sent."""
    if not current_user.is_authenticated:
        return f"address:{client_address()}"
    return f"workspace:{current_session().workspace_id}"


def invited_address() -> str:
    """The limiter's key for the address that gets mail: hashed, so that the store holds none."""
    email = accounts.stored_form(request.form.get("email", ""))
    return "invited:" + hashlib.sha256(email.encode("utf-8", "replace")).hexdigest()


def resent_invitation() -> str:
    """The limiter's key for an invitation that is sent again."""
    return f"{inviting_workspace()}:{(request.view_args or {}).get('invitation_id')}"


# Nobody is to be flooded with mail by us, neither one address nor many.
limited_by_workspace = limiter.shared_limit("60/hour", "invitations", key_func=inviting_workspace, methods=["POST"])
limited_by_address = limiter.limit("10/hour", key_func=invited_address, methods=["POST"])
limited_by_invitation = limiter.limit("5/hour", key_func=resent_invitation, methods=["POST"])


@bp.route("/invite", methods=["GET", "POST"])
@limited_by_workspace
@limited_by_address
@role_required("admin")
@recently_proved
def invite() -> Answer:
    workspace = current_workspace()
    form = InviteForm(members.assignable(current_role()))
    if form.validate_on_submit():
        try:
            invitation = invitations.invite(
                workspace,
                form.email.data or "",
                form.role.data or "",
                inviter=current_person(),
                actor=current_actor(),
                one_time_number=form.number(),
            )
        except InvalidInput as error:
            form.take(error)
        except AlreadyDone:
            return redirect(url_for("team.index"), 303)
        else:
            flash(f"An invitation is on its way to {invitation.email}.")
            return redirect(url_for("team.index"), 303)
    days = invitations.LIFETIME.days
    return render_template("team/invite.html", form=form, days=days), 422 if form.errors else 200


@bp.post("/invited/<invitation_id>/resend")
@limited_by_workspace
@limited_by_invitation
@role_required("admin")
@recently_proved
def resend(invitation_id: str) -> Response:
    invitation = invitations.resend(current_workspace(), invitation_id, actor=current_actor())
    flash(f"A new link is on its way to {invitation.email}. The one before no longer works.")
    return redirect(url_for("team.index"), 303)


@bp.post("/invited/<invitation_id>/withdraw")
@role_required("admin")
def withdraw(invitation_id: str) -> Response:
    invitation = invitations.withdraw(current_workspace(), invitation_id, actor=current_actor())
    flash(f"The invitation of {invitation.email} is withdrawn.")
    return redirect(url_for("team.index"), 303)
