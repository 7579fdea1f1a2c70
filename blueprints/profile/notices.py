"""Which notices a person gets by mail."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from werkzeug.wrappers import Response
from wtforms import SelectMultipleField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from blueprints.forms import PortalForm
from blueprints.guards import current_person, signed_in
from blueprints.profile.routes import bp
from services import notice_choices
from services.errors import InvalidInput
from services.notice_choices import CHOICES


class NoticesForm(PortalForm):
    """A box for each choice."""

    notices = SelectMultipleField(
        "Write to you when", choices=[SelectChoice(choice.name) for choice in CHOICES], validate_choice=False
    )


@bp.route("/notices", methods=["GET", "POST"])
@signed_in
def notices() -> str | Response | tuple[str, int]:
    person = current_person()
    form = NoticesForm(data={"notices": notice_choices.wanted(person)})
    if form.validate_on_submit():
        try:
            notice_choices.choose(person, form.notices.data or [])
        except InvalidInput as error:
            form.take(error)
        else:
            flash("Your notices are saved.")
            return redirect(url_for("profile.notices"), 303)
    return render_template("profile/notices.html", form=form, kinds=CHOICES), 422 if form.errors else 200
