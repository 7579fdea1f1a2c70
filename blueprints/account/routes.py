"""The operator's first start."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for

from blueprints.account.forms import NewPasswordForm
from blueprints.account.limits import limited_by_address
from blueprints.account.pages import Answer, page_of
from blueprints.guards import begin_session, client_address, client_name, public
from services import accounts, passwords
from services.errors import InvalidInput
from services.secret import Secret

bp = Blueprint("account", __name__)


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
