"""Found a key? Whoever holds it can end it here."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, url_for
from werkzeug.wrappers import Response
from wtforms import PasswordField, TextAreaField

from blueprints.forms import PortalForm
from blueprints.guards import client_address, client_name, public
from extensions import limiter
from services import found_keys
from services.errors import InvalidInput
from services.secret import Secret

bp = Blueprint("found", __name__, url_prefix="/found-a-key")

Answer = str | Response | tuple[str, int]


class FoundKeyForm(PortalForm):
    """The key, which never goes back into the page, and what its owners should know. The service judges both."""

    key = PasswordField("The key", render_kw={"autocomplete": "off", "spellcheck": "false"})
    note = TextAreaField("Where you found it (optional)", render_kw={"rows": 3, "autocomplete": "off"})


@bp.route("", methods=["GET", "POST"])
@limiter.limit("20/minute", methods=["POST"])
@public("possession of the key is the proof, and finders have no account")
def report() -> Answer:
    form = FoundKeyForm()
    if form.validate_on_submit():
        try:
            shown = Secret(form.key.data or "")
            found_keys.end(shown, form.note.data or "", address=client_address(), client=client_name())
        except InvalidInput as error:
            form.take(error)
        else:
            return redirect(url_for("found.done"), 303)
    page = render_template("found/report.html", form=form, note_length=found_keys.NOTE_LENGTH)
    return page, 422 if form.errors else 200


@bp.get("/done")
@public("says the same to everybody, whatever was sent")
def done() -> str:
    return render_template("found/done.html")
