"""Pages of the second factor: an authenticator app, and recovery codes."""

from __future__ import annotations

import secrets
from typing import Any

import segno
from flask import flash, make_response, redirect, render_template, session, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response
from wtforms import HiddenField, PasswordField, StringField

from blueprints.account.pages import Answer
from blueprints.account.routes import bp
from blueprints.forms import PortalForm, stripped
from blueprints.guards import current_actor, current_person, recently_proved, signed_in
from services import passkeys, passwords, second_factor, totp
from services.errors import InvalidInput
from services.secret import Secret

_SHOWN = "codes_shown"
_WAITING = {"autocomplete": "one-time-code", "inputmode": "numeric", "spellcheck": "false"}


class FirstCodeForm(PortalForm):
    """The code that proves that the app has the secret."""

    code = StringField("Code from the app", filters=[stripped], render_kw=_WAITING)


class NewCodesForm(PortalForm):
    """The question before new recovery codes; the number tells a second sending from a second wish."""

    number = HiddenField(default=lambda: secrets.token_urlsafe(16))


class EndForm(PortalForm):
    """The question before a factor goes. The password is asked when it has to stand alone afterwards."""

    password = PasswordField("Password", render_kw={"autocomplete": "current-password"})

    def __init__(self) -> None:
        super().__init__()
        user = current_person()
        if not (user.password_hash and second_factor.is_last(user)):
            del self.password

    def given_password(self) -> Secret | None:
        return Secret(self.password.data or "") if self.password else None


@bp.context_processor
def panels() -> dict[str, Any]:
    """What the panels of the security page ask for, whoever makes the page."""
    return {
        "second_factor_standing": lambda: second_factor.standing(current_person()),
        "own_passkeys": lambda: passkeys.of_user(current_person()),
        "passkeys_possible": passkeys.are_possible,
        "least_password_length": passwords.LEAST_LENGTH,
    }


@bp.post("/account/app")
@signed_in
@recently_proved
def begin_app() -> Response:
    totp.begin(current_person())
    return redirect(url_for("account.set_up_app"), 303)


@bp.route("/account/app/new", methods=["GET", "POST"])
@signed_in
@recently_proved
def set_up_app() -> Answer:
    user, form = current_person(), FirstCodeForm()
    set_up = totp.set_up_of(user)
    if set_up is None:
        return to_security()
    if form.validate_on_submit():
        try:
            codes = second_factor.confirm_app(user, form.code.data or "", current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash("Your authenticator app is set up.")
            return codes_shown_once(codes) if codes else to_security()
    secret = set_up.secret.reveal()
    groups = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
    page = render_template("account/set_up_app.html", form=form, picture=_picture(set_up.address), secret=groups)
    return page, 422 if form.errors else 200


@bp.route("/account/app/remove", methods=["GET", "POST"])
@signed_in
@recently_proved
def remove_app() -> Answer:
    user = current_person()
    if totp.find(user) is None:
        return to_security()
    form = EndForm()
    if form.validate_on_submit():
        try:
            second_factor.remove_app(user, current_actor(), password=form.given_password())
        except InvalidInput as error:
            form.take(error)
        else:
            flash("The authenticator app is removed.")
            return to_security()
    page = render_template("account/remove_app.html", form=form, last=second_factor.is_last(user))
    return page, 422 if form.errors else 200


@bp.route("/account/recovery-codes", methods=["GET", "POST"])
@signed_in
@recently_proved
def new_codes() -> Answer:
    user, form = current_person(), NewCodesForm()
    if not second_factor.is_on(user):
        return to_security()
    if form.validate_on_submit():
        number = stripped(form.number.data)[:64]
        if number and session.get(_SHOWN) == number:
            return render_template("account/codes_already_shown.html")
        codes = second_factor.new_codes(user, current_actor())
        session[_SHOWN] = number
        return codes_shown_once(codes)
    standing = second_factor.standing(user)
    return render_template("account/new_codes.html", form=form, standing=standing), 422 if form.errors else 200


def codes_shown_once(codes: list[Secret]) -> Response:
    """The only page that ever holds recovery codes; nothing between here and the reader may keep it."""
    answer = make_response(render_template("account/codes.html", codes=[code.reveal() for code in codes]))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def to_security() -> Response:
    return redirect(url_for("account.security"), 303)


def _picture(address: Secret) -> Markup:
    """Return a QR code as inline SVG without any style. Dark on light in both themes: scanners ask for that."""
    code = segno.make(address.reveal(), error="m", micro=False)
    drawn = code.svg_inline(omitsize=True, border=4, dark="#000", light="#fff", svgclass=None, lineclass=None)
    return Markup(drawn)  # noqa: S704 - made of squares, whatever the text is
