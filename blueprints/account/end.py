"""Deleting one's own account."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from wtforms import HiddenField, SelectField, StringField
from wtforms.validators import ValidationError

from blueprints.account.pages import Answer
from blueprints.account.routes import bp
from blueprints.forms import PortalForm, choices_for_keys, heir_of, stripped
from blueprints.guards import current_actor, current_person, end_session, recently_proved, signed_in
from models import User
from services import account_end
from services.account_end import Consequences, Shared
from services.errors import InvalidInput


class DeleteAccountForm(PortalForm):
    """The address, the workspaces that go, and a choice for the keys in each one that stays."""

    email = StringField(
        "Type your e-mail address to confirm",
        filters=[stripped],
        render_kw={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"},
    )
    gone = HiddenField()

    user: User

    def validate_email(self, field: StringField) -> None:
        if not account_end.is_confirmed_by(self.user, field.data or ""):
            raise ValidationError(f"Type {self.user.email}, the address of this account")

    def seen(self) -> set[str]:
        """Return the ids of the workspaces that the page said go."""
        return set((self.gone.data or "").split())

    def heirs(self, shared: list[Shared]) -> dict[str, str | None]:
        """Return who takes over the keys, for each workspace for which that was asked."""
        asked = [one for one in shared if _field(one) in self and self[_field(one)].data]
        return {one.workspace.id: heir_of(self[_field(one)].data) for one in asked}


def form_for(user: User, found: Consequences) -> DeleteAccountForm:
    """Return the form with a field for each workspace in which the person leaves keys."""
    with_keys = [shared for shared in found.shared if shared.keys]
    fields = {
        _field(shared): SelectField(
            f"Your API keys in {shared.workspace.name}",
            choices=choices_for_keys(shared.heirs),
            validate_choice=False,
        )
        for shared in with_keys
    }
    form: DeleteAccountForm = type("Form", (DeleteAccountForm,), fields)(data={"gone": _gone(found)})
    form.user = user
    return form


@bp.route("/account/delete", methods=["GET", "POST"])
@signed_in
@recently_proved
def delete_account() -> Answer:
    person = current_person()
    found = account_end.consequences(person)
    form = form_for(person, found)
    if form.validate_on_submit():
        try:
            account_end.delete_account(
                person.id, seen=form.seen(), heirs=form.heirs(found.shared), actor=current_actor()
            )
        except InvalidInput as error:
            form.take(error)
            # The page tells of what goes now.
            form.gone.data = _gone(found)
        else:
            end_session()
            flash("Your account is deleted.")
            return redirect(url_for("account.sign_in"), 303)
    choices = {shared.workspace.id: form[_field(shared)] for shared in found.shared if _field(shared) in form}
    page = render_template("account/delete.html", form=form, found=found, choices=choices, person=person)
    return page, 422 if form.errors else 200


def _gone(found: Consequences) -> str:
    return " ".join(sorted(workspace.id for workspace in found.alone))


def _field(shared: Shared) -> str:
    return f"keys_{shared.workspace.id}"
