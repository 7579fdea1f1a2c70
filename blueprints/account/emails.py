"""Moving an account to another e-mail address."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from blueprints.account.forms import ChangeEmailForm, PlainForm
from blueprints.account.limits import limited_by_address, limited_person
from blueprints.account.pages import Answer, page_of
from blueprints.account.routes import bp
from blueprints.guards import (
    client_address,
    client_name,
    current_actor,
    current_person,
    end_session,
    public,
    recently_proved,
    signed_in,
)
from services import email_change, mailed_links
from services.errors import InvalidInput
from services.secret import Secret


@bp.route("/account/email", methods=["GET", "POST"])
@limited_person
@signed_in
def change_email() -> Answer:
    # Who has no password proves in another way who they are.
    return _change_email() if current_person().password_hash else _change_email_proved()


def _change_email() -> Answer:
    form = ChangeEmailForm()
    person = current_person()
    if form.validate_on_submit():
        try:
            asked = email_change.ask(person, form.email.data or "", form.secret(), current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"We have sent a link to {asked}. Your address changes when you open it.")
            return redirect(url_for("account.security"), 303)
    return page_of("account/change_email.html", form, person=person)


_change_email_proved = recently_proved(_change_email)


@bp.post("/account/email/stop")
@signed_in
def stop_email_change() -> Response:
    mailed_links.void(current_person(), mailed_links.CHANGE)
    flash("The change of your address is stopped.")
    return redirect(url_for("account.security"), 303)


@bp.route("/email/<token>", methods=["GET", "POST"])
@limited_by_address
@signed_in
def confirm_email(token: str) -> Answer:
    link = email_change.waiting(current_person(), Secret(token))
    if link is None:
        return render_template("account/link_used.html", again="account.change_email", what="Change your address"), 410
    form = PlainForm()
    if form.validate_on_submit():
        email = email_change.confirm(current_person(), Secret(token), current_actor())
        flash(f"Your address is now {email}.")
        return redirect(url_for("account.security"), 303)
    return page_of("account/confirm_email.html", form, token=token, email=link.email, person=current_person())


@bp.route("/email/undo/<token>", methods=["GET", "POST"])
@limited_by_address
@public("whoever reads mail at the former address; the mailed link is the proof")
def undo_email(token: str) -> Answer:
    link = email_change.undone_by(Secret(token))
    if link is None:
        return render_template("account/link_used.html", again="account.reset", what="Reset your password"), 410
    form = PlainForm()
    if form.validate_on_submit():
        if email_change.undo(Secret(token), address=client_address(), client=client_name()):
            end_session()
            flash("Your address is back, and everybody is signed out. Choose a new password now.")
            return redirect(url_for("account.reset"), 303)
        flash("The change of your address is stopped.")
        return redirect(url_for("account.sign_in"), 303)
    done = link.email != mailed_links.user_of(link).email
    return page_of("account/undo_email.html", form, token=token, email=link.email, done=done)
