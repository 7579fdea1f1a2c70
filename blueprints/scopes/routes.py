"""The scopes that a workspace defines for its own services: everybody sees them, owners and admins change them."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response
from wtforms import StringField

from blueprints.forms import PortalForm, stripped
from blueprints.guards import current_actor, current_role, current_workspace, recently_proved, role_required
from services import custom_scopes
from services.errors import InvalidInput
from services.permissions import Role

bp = Blueprint("scopes", __name__, url_prefix="/keys/scopes")

Answer = str | Response | tuple[str, int]


class ScopeForm(PortalForm):
    """A new scope; the service judges both fields."""

    name = StringField("Name", filters=[stripped], render_kw={"autocomplete": "off", "spellcheck": "false"})
    meaning = StringField(
        "What it allows",
        filters=[stripped],
        render_kw={"maxlength": custom_scopes.MEANING_LENGTH, "autocomplete": "off"},
    )


class RemoveForm(PortalForm):
    """The last question before a scope goes."""


@bp.get("")
@role_required("viewer")
def index() -> str:
    return _page(ScopeForm())


@bp.post("")
@role_required("admin")
@recently_proved
def define() -> Answer:
    form = ScopeForm()
    if form.validate_on_submit():
        name, meaning = form.name.data or "", form.meaning.data or ""
        try:
            scope = custom_scopes.define(current_workspace(), name, meaning, actor=current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"Scope {scope.name} is defined. New keys can have it.")
            return redirect(url_for("scopes.index"), 303)
    return _page(form), 422


@bp.route("/<scope_id>/remove", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def remove(scope_id: str) -> Answer:
    scope = custom_scopes.get(current_workspace(), scope_id)
    form, name = RemoveForm(), scope.name
    if form.validate_on_submit():
        try:
            custom_scopes.remove(current_workspace(), scope_id, actor=current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"Scope {name} is removed.")
            return redirect(url_for("scopes.index"), 303)
    return render_template("scopes/remove.html", form=form, scope=scope), 422 if form.errors else 200


def _page(form: ScopeForm) -> str:
    own = custom_scopes.of_workspace(current_workspace())
    may_define = current_role().includes(Role.ADMIN)
    return render_template("scopes/index.html", form=form, scopes=own, may_define=may_define)
