"""Sign-in, sign-out and the operator's first start."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints.account.forms import NewPasswordForm, SignInForm
from blueprints.account.limits import limited_by_account, limited_by_address
from blueprints.account.pages import Answer, onwards, page_of
from blueprints.guards import begin_session, client_address, client_name, end_session, public
from services import accounts, passwords
from services.errors import InvalidInput, WrongCredentials
from services.parts import parts
from services.secret import Secret

bp = Blueprint("account", __name__)


@bp.route("/sign-in", methods=["GET", "POST"])
@limited_by_address
@limited_by_account
@public("whoever has an account")
def sign_in() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    form = SignInForm()
    if form.validate_on_submit():
        try:
            token = accounts.sign_in(*form.credentials(), address=client_address(), client=client_name())
        except WrongCredentials as error:
            form.fault("email", error.message.rstrip("."))
        else:
            begin_session(token)
            return onwards()
    return page_of("account/sign_in.html", form, sign_up_open=parts().sign_up_open, provider=parts().oidc)


@bp.post("/sign-out")
@public("who is signed out already loses nothing")
def sign_out() -> Response:
    end_session()
    flash("You are signed out.")
    return redirect(url_for("account.sign_in"), 303)


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
