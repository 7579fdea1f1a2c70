"""Account security: password, address, sessions, and what else signs a person in."""

from __future__ import annotations

from dataclasses import dataclass

from flask import flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from blueprints.account.devices import device_of
from blueprints.account.forms import ChangePasswordForm
from blueprints.account.limits import limited_person
from blueprints.account.pages import Answer, page_of
from blueprints.account.routes import bp
from blueprints.guards import current_actor, current_person, current_session, recently_proved, signed_in
from models import LoginSession
from services import external_identities, mailed_links, password_change, passwords, second_factor, session_list
from services.errors import InvalidInput
from services.parts import parts


@dataclass(frozen=True, slots=True)
class SessionView:
    """A browser that is signed in, as the list shows it."""

    row: LoginSession
    device: str
    here: bool


@bp.get("/account/security")
@signed_in
def security() -> str:
    person, here = current_person(), current_session()
    views = [SessionView(row, device_of(row.client), row.id == here.id) for row in session_list.living(person)]
    return render_template(
        "account/security.html",
        person=person,
        # The one at hand stands in front.
        sessions=sorted(views, key=lambda view: not view.here),
        pending=mailed_links.pending_change(person),
        identities=external_identities.of(person),
        may_remove_identity=external_identities.may_remove(person),
        provider=parts().oidc,
    )


@bp.route("/account/password", methods=["GET", "POST"])
@limited_person
@signed_in
def change_password() -> Answer:
    # Who has no password yet proves in another way who they are.
    return _change_password() if current_person().password_hash else _first_password()


def _change_password() -> Answer:
    form = ChangePasswordForm()
    person = current_person()
    if form.validate_on_submit():
        try:
            password_change.change(current_session(), *form.secrets(), current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash("Your password is changed. Other browsers are signed out.")
            return redirect(url_for("account.security"), 303)
    least = passwords.LEAST_LENGTH_BESIDE if second_factor.is_on(person) else passwords.LEAST_LENGTH
    return page_of("account/change_password.html", form, person=person, least_length=least)


_first_password = recently_proved(_change_password)


@bp.post("/account/sessions/<session_id>/end")
@signed_in
@recently_proved
def end_one_session(session_id: str) -> Response:
    session_list.end_one(current_person(), session_id, current_actor())
    flash("That browser is signed out.")
    return redirect(url_for("account.security", _anchor="sessions"), 303)


@bp.post("/account/sessions/end-others")
@signed_in
@recently_proved
def end_other_sessions() -> Response:
    ended = session_list.end_others(current_session(), current_actor())
    flash(f"Signed out everywhere else: {ended} {'browser' if ended == 1 else 'browsers'}.")
    return redirect(url_for("account.security", _anchor="sessions"), 303)
