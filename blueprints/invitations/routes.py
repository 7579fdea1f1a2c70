"""The page of an invitation: accept it, or first sign in or make an account.

The link is the proof that its opener reads mail at the address; no page of it names another account's address.
"""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import PasswordField

from blueprints.forms import PortalForm
from blueprints.guards import (
    begin_session,
    client_address,
    client_name,
    current_actor,
    current_person,
    current_session,
    end_session,
    public,
)
from extensions import limiter
from services import invitations, passwords
from services.errors import InvalidInput
from services.secret import Secret

bp = Blueprint("invitations", __name__, url_prefix="/invitations")

Answer = str | Response | tuple[str, int]
limited_by_address = limiter.limit("60/minute")


class AccountForm(PortalForm):
    """The password of a new account; its address is that of the invitation."""

    password = PasswordField("Password", render_kw={"autocomplete": "new-password"})


@bp.get("/<token>")
@limited_by_address
@public("whoever holds the link may see what it leads to")
def show(token: str) -> Answer:
    found = _found(token)
    if found is None:
        return _over()
    state = "signed_out"
    if current_user.is_authenticated:
        state = "accept" if current_person().email == found.invitation.email else "other_address"
    return render_template("invitations/show.html", found=found, token=token, state=state, me=_me())


@bp.post("/<token>")
@limited_by_address
@public("the link is the proof, and who is signed out is asked to sign in")
def accept(token: str) -> Answer:
    if not current_user.is_authenticated:
        return redirect(url_for("invitations.show", token=token), 303)
    try:
        workspace = invitations.accept(Secret(token), current_session(), actor=current_actor())
    except invitations.InvitationOver:
        return _over()
    flash(f"You are now a member of {workspace.name}.")
    return redirect(url_for("overview.show"), 303)


@bp.route("/<token>/account", methods=["GET", "POST"])
@limited_by_address
@public("whoever is invited may have no account yet; the link itself is the proof")
def account(token: str) -> Answer:
    found = _found(token)
    if found is None:
        return _over()
    if current_user.is_authenticated:
        return redirect(url_for("invitations.show", token=token), 303)
    form = AccountForm()
    if form.validate_on_submit():
        try:
            session_token = invitations.accept_with_new_account(
                Secret(token), Secret(form.password.data or ""), address=client_address(), client=client_name()
            )
        except InvalidInput as error:
            form.take(error)
        except invitations.InvitationOver:
            return _over()
        else:
            begin_session(session_token)
            flash(f"Your account is ready. You are now a member of {found.workspace.name}.")
            return redirect(url_for("overview.show"), 303)
    page = render_template(
        "invitations/account.html", form=form, found=found, token=token, least_length=passwords.LEAST_LENGTH
    )
    return page, 422 if form.errors else 200


@bp.post("/<token>/sign-out")
@public("who is signed out already loses nothing")
def sign_out(token: str) -> Response:
    """Sign out and come back to the invitation."""
    end_session()
    return redirect(url_for("invitations.show", token=token), 303)


def _me() -> str | None:
    return current_person().email if current_user.is_authenticated else None


def _found(token: str) -> invitations.Found | None:
    try:
        return invitations.find(Secret(token))
    except invitations.InvitationOver:
        return None


def _over() -> tuple[str, int]:
    return render_template("invitations/over.html"), 410
