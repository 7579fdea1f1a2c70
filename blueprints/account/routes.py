"""Sign-up and the operator's first start, and what all pages before a session share."""

from __future__ import annotations

import hashlib
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints.account.forms import NewPasswordForm
from blueprints.forms import PortalForm
from blueprints.guards import begin_session, client_address, client_name, local_path, public
from extensions import limiter
from services import accounts, passwords
from services.errors import InvalidInput
from services.secret import Secret

bp = Blueprint("account", __name__)

Answer = str | Response | tuple[str, int]


def account_named() -> str:
    """The limiter's key for the account somebody tries: its address hashed, so that the store holds none."""
    email = accounts.stored_form(request.form.get("email", ""))
    return "account:" + hashlib.sha256(email.encode("utf-8", "replace")).hexdigest()


# Each attempt counts, not only a failed one: of many at once all would pass before the first has failed.
limited_by_address = limiter.limit("60/minute", methods=["POST"])
limited_by_account = limiter.limit("10/minute", key_func=account_named, methods=["POST"])


@bp.route("/sign-up", methods=["GET", "POST"])
@limited_by_address
@public("whoever wants an account")
def sign_up() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    form = NewPasswordForm()
    if form.validate_on_submit():
        try:
            token = accounts.sign_up(*form.credentials(), address=client_address(), client=client_name())
        except InvalidInput as error:
            form.take(error)
        else:
            begin_session(token)
            flash("Your account is ready.")
            return onwards()
    return page_of("account/sign_up.html", form, least_length=passwords.LEAST_LENGTH)


@bp.route("/setup/<token>", methods=["GET", "POST"])
@limited_by_address
@public("the first operator has no account yet; the link itself is the proof")
def set_up(token: str) -> Answer:
    link = Secret(token)
    if not accounts.set_up_open(link):
        return render_template("account/set_up_used.html"), 410
    form = NewPasswordForm()
    if form.validate_on_submit():
        try:
            session_token = accounts.create_operator(
                link, *form.credentials(), address=client_address(), client=client_name()
            )
        except InvalidInput as error:
            form.take(error)
        else:
            begin_session(session_token)
            flash("You are the operator of this portal.")
            return redirect(url_for("overview.show"), 303)
    return page_of("account/set_up.html", form, least_length=passwords.LEAST_LENGTH, token=token)


def onwards() -> Response:
    """Go where somebody wanted to before they had to sign in, else to the overview."""
    return redirect(local_path(request.args.get("next")) or url_for("overview.show"), 303)


def page_of(template: str, form: PortalForm, **more: Any) -> tuple[str, int]:
    """Return the page of a form, with where to go afterwards, and 422 when the form was refused."""
    next_path = local_path(request.args.get("next"))
    return render_template(template, form=form, next=next_path, **more), 422 if form.errors else 200
