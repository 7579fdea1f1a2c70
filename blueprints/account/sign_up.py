"""Sign-up: an address, a link, a password."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from flask_login import current_user

from blueprints.account.forms import AddressForm, ChoosePasswordForm
from blueprints.account.limits import limited_by_address, limited_mail
from blueprints.account.pages import Answer, mail_goes_to_files, onwards, page_of, stranger
from blueprints.account.routes import bp
from blueprints.guards import begin_session, client_address, client_name, end_session, public
from services import passwords, sign_up
from services.errors import InvalidInput
from services.parts import parts
from services.secret import Secret


@bp.route("/sign-up", endpoint="sign_up", methods=["GET", "POST"])
@limited_mail
@public("whoever wants an account")
def ask_to_sign_up() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    form = AddressForm()
    if not parts().sign_up_open:
        # What is sent is refused by the service; who only looks is told how to get in.
        if form.validate_on_submit():
            sign_up.ask(form.email.data or "", stranger())
        return render_template("account/sign_up_closed.html")
    if form.validate_on_submit():
        try:
            sign_up.ask(form.email.data or "", stranger())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"We have sent a link to {form.email.data}.")
            return redirect(url_for("account.sign_up_sent"), 303)
    return page_of("account/sign_up.html", form)


@bp.get("/sign-up/sent")
@public("says the same to everybody, whatever was sent")
def sign_up_sent() -> str:
    return render_template("account/sign_up_sent.html", to_files=mail_goes_to_files())


@bp.route("/confirm/<token>", methods=["GET", "POST"])
@limited_by_address
@public("whoever asked for an account; the mailed link is the proof")
def confirm(token: str) -> Answer:
    link = Secret(token)
    email = sign_up.asked_with(link)
    if email is None:
        return render_template("account/link_used.html", again="account.sign_up", what="Create an account"), 410
    form = ChoosePasswordForm()
    if form.validate_on_submit():
        try:
            session_token = sign_up.confirm(link, form.secret(), address=client_address(), client=client_name())
        except InvalidInput as error:
            form.take(error)
        else:
            end_session()
            begin_session(session_token)
            flash("Your account is ready.")
            return redirect(url_for("overview.show"), 303)
    return page_of("account/confirm.html", form, email=email, token=token, least_length=passwords.LEAST_LENGTH)
