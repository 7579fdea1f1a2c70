"""Pages of passkeys: a new one, another name, its end. The list is a panel of the security page."""

from __future__ import annotations

from flask import flash, render_template
from werkzeug.wrappers import Response
from wtforms import HiddenField, StringField

from blueprints import proving
from blueprints.account.limits import limited_by_address
from blueprints.account.pages import Answer
from blueprints.account.routes import bp
from blueprints.account.second_factor import EndForm, codes_shown_once, to_security
from blueprints.account.sign_in import challenge
from blueprints.forms import PortalForm, stripped
from blueprints.guards import current_actor, current_person, recently_proved, signed_in
from services import passkeys, second_factor
from services.errors import InvalidInput
from services.parts import parts
from services.secret import Secret


class NameForm(PortalForm):
    """What a passkey is called."""

    name = StringField("Name", filters=[stripped], render_kw={"maxlength": passkeys.NAME_LENGTH, "autocomplete": "off"})


class NewPasskeyForm(NameForm):
    """A name, and what the device has answered; the script fills that in."""

    answer = HiddenField()


@bp.route("/account/passkeys/new", methods=["GET", "POST"])
@signed_in
@recently_proved
def new_passkey() -> Answer:
    user = current_person()
    form = NewPasskeyForm(data={"name": f"Passkey {len(passkeys.of_user(user)) + 1}"})
    if form.validate_on_submit():
        given = form.answer.data or "", form.name.data or ""
        try:
            _passkey, codes = passkeys.register(
                user, proving.pending_challenge() or Secret(""), *given, actor=current_actor()
            )
        except InvalidInput as error:
            form.take(error)
        else:
            flash("The passkey is added.")
            return codes_shown_once(codes) if codes else to_security()
    return render_template(
        "account/new_passkey.html", form=form, site=parts().relying_party
    ), 422 if form.errors else 200


@bp.post("/account/passkeys/options")
@limited_by_address
@signed_in
@recently_proved
def new_passkey_options() -> Response:
    return challenge(*passkeys.begin_registration(current_person()))


@bp.route("/account/passkeys/<passkey_id>/rename", methods=["GET", "POST"])
@signed_in
@recently_proved
def rename_passkey(passkey_id: str) -> Answer:
    passkey = passkeys.get(current_person(), passkey_id)
    form = NameForm(data={"name": passkey.name})
    if form.validate_on_submit():
        try:
            passkeys.rename(current_person(), passkey_id, form.name.data or "", current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash("The passkey has its new name.")
            return to_security()
    return render_template("account/rename_passkey.html", form=form, passkey=passkey), 422 if form.errors else 200


@bp.route("/account/passkeys/<passkey_id>/delete", methods=["GET", "POST"])
@signed_in
@recently_proved
def delete_passkey(passkey_id: str) -> Answer:
    user = current_person()
    passkey = passkeys.get(user, passkey_id)
    form = EndForm()
    if form.validate_on_submit():
        name = passkey.name
        try:
            passkeys.delete(user, passkey_id, current_actor(), password=form.given_password())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"The passkey “{name}” is deleted.")
            return to_security()
    last = second_factor.is_last(user)
    page = render_template("account/delete_passkey.html", form=form, passkey=passkey, last=last)
    return page, 422 if form.errors else 200
