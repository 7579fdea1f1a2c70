"""The profile page."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response
from wtforms import RadioField, SelectField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from blueprints.forms import PortalForm, stripped, zone_choices
from blueprints.guards import current_person, signed_in
from models import User
from services import names, profiles
from services.errors import InvalidInput

bp = Blueprint("profile", __name__, url_prefix="/account")

AS_THE_SYSTEM = "system"
THEME_HINTS = {
    AS_THE_SYSTEM: "Light or dark, as your device is set.",
    "light": "Dark text on a light page, always.",
    "dark": "Light text on a dark page, always.",
}


class ProfileForm(PortalForm):
    """Name, zone and appearance."""

    name = StringField("Name", filters=[stripped], render_kw={"autocomplete": "name", "maxlength": names.LENGTH})
    time_zone = SelectField("Time zone", validate_choice=False)
    theme = RadioField(
        "Appearance",
        choices=[
            SelectChoice(AS_THE_SYSTEM, "As the system"),
            SelectChoice("light", "Light"),
            SelectChoice("dark", "Dark"),
        ],
        validate_choice=False,
    )

    def __init__(self, user: User) -> None:
        super().__init__(
            data={"name": user.name or "", "time_zone": user.time_zone, "theme": user.theme or AS_THE_SYSTEM}
        )
        self.time_zone.choices = zone_choices(user.time_zone)


@bp.route("/profile", methods=["GET", "POST"])
@signed_in
def show() -> str | Response | tuple[str, int]:
    person = current_person()
    form = ProfileForm(person)
    if form.validate_on_submit():
        theme = form.theme.data
        try:
            profiles.change(
                person,
                name=form.name.data or "",
                time_zone=form.time_zone.data or "",
                theme=None if theme == AS_THE_SYSTEM else theme or "",
            )
        except InvalidInput as error:
            form.take(error)
        else:
            flash("Your profile is saved.")
            return redirect(url_for("profile.show"), 303)
    return render_template("profile/show.html", form=form, hints=THEME_HINTS), 422 if form.errors else 200
