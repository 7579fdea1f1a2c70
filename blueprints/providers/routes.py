"""The workspace's connections to model providers: everybody sees them, owners and admins change them."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.guards import current_actor, current_role, current_workspace, recently_proved, role_required
from blueprints.presenters import provider_view, provider_views
from blueprints.providers.forms import ConfirmForm, KeyForm, NewKeyForm
from extensions import limiter
from models import ProviderKey
from services import provider_keys
from services.errors import AlreadyDone, InvalidInput
from services.parts import parts
from services.permissions import Role
from services.provider_keys import (
    CANNOT_DECRYPT,
    INVALID,
    NO_CREDIT,
    RATE_LIMITED,
    RESTRICTED,
    UNREACHABLE,
    UNVERIFIED,
    VALID,
    ProviderUnreachable,
)

bp = Blueprint("providers", __name__, url_prefix="/keys/providers")

Answer = str | Response | tuple[str, int]

# Each of them asks a provider, which takes up to ten seconds.
limited = limiter.limit("30/minute", methods=["POST"])

_SAVED = {
    VALID: "The {} key is saved. It works.",
    RESTRICTED: "The {} key is saved. It is restricted, so some calls may be refused.",
    RATE_LIMITED: "The {} key is saved. It works, but its rate is limited at the moment.",
    UNVERIFIED: "The {} key is saved without a check.",
}

_FOUND = {
    VALID: "{} accepts the key.",
    INVALID: "{} does not accept the key.",
    NO_CREDIT: "{} accepts the key, but the account has no credit.",
    RESTRICTED: "{} accepts the key, but does not let it do everything.",
    RATE_LIMITED: "{} accepts the key, but limits its rate at the moment.",
    UNREACHABLE: "We could not reach {}. The key is neither right nor wrong for now.",
    UNVERIFIED: "{} has nothing to check the key with.",
    CANNOT_DECRYPT: "The {} key cannot be decrypted.",
}


@bp.get("")
@role_required("viewer")
def index() -> str:
    views = provider_views(current_workspace(), with_spend=True)
    return render_template("providers/index.html", providers=views, may_manage=may_manage())


@bp.route("/new", methods=["GET", "POST"])
@limited
@role_required("admin")
@recently_proved
def new() -> Answer:
    form = NewKeyForm()
    if not form.is_submitted():
        form.provider.data = request.args.get("provider") or next(iter(parts().providers))
    unreachable = None
    if form.validate_on_submit():
        try:
            return _save(form.chosen(), form)
        except InvalidInput as error:
            form.take(error)
        except ProviderUnreachable as error:
            unreachable = error
    page = render_template("providers/new.html", form=form, unreachable=unreachable)
    return page, _status(form, unreachable)


@bp.route("/<name>/update", methods=["GET", "POST"])
@limited
@role_required("admin")
@recently_proved
def update(name: str) -> Answer:
    row = provider_keys.get(current_workspace(), name)
    form, view, unreachable = KeyForm(row), provider_view(row), None
    if form.validate_on_submit():
        try:
            return _save(name, form)
        except InvalidInput as error:
            form.take(error)
        except ProviderUnreachable as error:
            unreachable = error
    page = render_template("providers/update.html", form=form, view=view, unreachable=unreachable)
    return page, _status(form, unreachable)


@bp.post("/<name>/test")
@limited
@role_required("admin")
def test(name: str) -> Response:
    row = provider_keys.check_saved(current_workspace(), name)
    flash(_FOUND[row.state].format(provider_keys.title_of(row)), "message" if row.state == VALID else "warn")
    return redirect(url_for("providers.index"), 303)


@bp.route("/<name>/delete", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def delete(name: str) -> Answer:
    row = provider_keys.get(current_workspace(), name)
    form, view = ConfirmForm(), provider_view(row)
    if form.validate_on_submit():
        provider_keys.delete(current_workspace(), name, actor=current_actor())
        flash(f"The {view.title} key is deleted.")
        return redirect(url_for("providers.index"), 303)
    return render_template("providers/delete.html", form=form, view=view), 422 if form.errors else 200


def may_manage() -> bool:
    return current_role().includes(Role.ADMIN)


def _save(name: str, form: KeyForm) -> Response:
    """Save what was entered, with a check unless the button without one was pressed."""
    check = "unchecked" not in request.form
    try:
        row = provider_keys.save(current_workspace(), name, actor=current_actor(), check=check, **form.settings())
    except AlreadyDone:
        row = provider_keys.get(current_workspace(), name)
    flash(_told(row))
    return redirect(url_for("providers.index"), 303)


def _told(row: ProviderKey) -> str:
    return _SAVED.get(row.state, "The {} key is saved.").format(provider_keys.title_of(row))


def _status(form: KeyForm, unreachable: ProviderUnreachable | None) -> int:
    return 503 if unreachable else 422 if form.errors else 200
