"""Reset of a password by link. It signs nobody in, so a second factor is asked for as always."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for

from blueprints import known_devices
from blueprints.account.forms import AddressForm, ChoosePasswordForm
from blueprints.account.limits import limited_by_address, limited_mail
from blueprints.account.pages import Answer, mail_goes_to_files, page_of, stranger
from blueprints.account.routes import bp
from blueprints.guards import client_address, client_name, end_session, public
from services import password_change, passwords, second_factor
from services.errors import InvalidInput
from services.secret import Secret


@bp.route("/reset", methods=["GET", "POST"])
@limited_mail
@public("whoever has forgotten their password")
def reset() -> Answer:
    form = AddressForm()
    if form.validate_on_submit():
        try:
            password_change.ask_for_reset(form.email.data or "", stranger())
        except InvalidInput as error:
            form.take(error)
        else:
            return redirect(url_for("account.reset_sent"), 303)
    return page_of("account/reset.html", form)


@bp.get("/reset/sent")
@public("says the same to everybody, whatever was sent")
def reset_sent() -> str:
    return render_template("account/reset_sent.html", to_files=mail_goes_to_files())


@bp.route("/reset/<token>", methods=["GET", "POST"])
@limited_by_address
@public("whoever has forgotten their password; the mailed link is the proof")
def reset_by_link(token: str) -> Answer:
    link = Secret(token)
    user = password_change.reset_open(link)
    if user is None:
        return render_template("account/link_used.html", again="account.reset", what="Reset your password"), 410
    form = ChoosePasswordForm()
    if form.validate_on_submit():
        try:
            user = password_change.reset(link, form.secret(), address=client_address(), client=client_name())
        except InvalidInput as error:
            form.take(error)
        else:
            end_session()
            # Whoever reads the owner's mail is no stranger, however many of those try passwords just now.
            known_devices.remember(user.email)
            flash("Your password is changed. Sign in with it.")
            return redirect(url_for("account.sign_in"), 303)
    least = passwords.LEAST_LENGTH_BESIDE if second_factor.is_on(user) else passwords.LEAST_LENGTH
    return page_of("account/reset_by_link.html", form, email=user.email, token=token, least_length=least)
