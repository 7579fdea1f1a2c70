"""Signing in through the operator's identity provider, and connecting it to an account."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints.account.forms import PlainForm
from blueprints.account.limits import network
from blueprints.account.pages import Answer, onwards, page_of
from blueprints.account.prove_elsewhere import KEPT, proved_elsewhere
from blueprints.account.routes import bp
from blueprints.account.sign_in import go_on
from blueprints.guards import (
    client_address,
    client_name,
    current_actor,
    current_person,
    local_path,
    public,
    recently_proved,
    signed_in,
)
from extensions import limiter
from models import User
from services import external_identities, sign_in
from services.errors import InvalidInput, WrongCredentials
from services.external_identities import AddressInUse, Way
from services.identity_claims import Claims, IdentityRefused, ProviderAway
from services.secret import Secret

# Each begins or ends a conversation with the provider.
_limited = limiter.limit("30/minute", key_func=network)


@bp.get("/sign-in/elsewhere")
@_limited
@public("whoever has an account at the identity provider")
def sign_in_elsewhere() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    return _leave(local_path(request.args.get("next")))


@bp.get("/account/identities/connect")
@_limited
@signed_in
@recently_proved
def connect_identity() -> Response:
    return _leave(None, current_person())


@bp.get("/sign-in/elsewhere/back")
@_limited
@public("the provider's answer; what this browser was sent away with is the proof")
def back_from_elsewhere() -> Answer:
    try:
        way = external_identities.come_back(Secret(str(session.pop(KEPT, ""))))
        if way.proof_of:
            return proved_elsewhere(way)
        claims = external_identities.claims_of(way, request.args.to_dict())
        return _connected(way, claims) if way.connect_to else _entered(way, claims)
    except (IdentityRefused, WrongCredentials, InvalidInput) as error:
        return _refused(error.message), 403
    except ProviderAway as error:
        return _refused(error.message), error.status


def _entered(way: Way, claims: Claims) -> Response:
    try:
        user = external_identities.person_of(claims, address=client_address(), client=client_name())
    except AddressInUse as found:
        flash("There is an account for your address already. Sign in to it once, then the two are connected.", "warn")
        goal = url_for("account.accept_identity", token=found.token.reveal())
        return redirect(url_for("account.sign_in", next=goal), 303)
    return _signed_in(user, way.next_path)


def _signed_in(user: User, next_path: str | None) -> Response:
    step = sign_in.first_factor_done(
        user,
        methods=["oidc"],
        remembered=False,
        address=client_address(),
        client=client_name(),
        is_enough=external_identities.provider().settings.second_factor,
    )
    return go_on(step, next_path)


def _connected(way: Way, claims: Claims) -> Response:
    # Whoever began this must be the one who is back.
    if not current_user.is_authenticated or current_person().id != way.connect_to:
        raise IdentityRefused
    external_identities.connect(current_person(), claims, current_actor())
    flash(f"You can sign in with {external_identities.provider().name} from now on.")
    return redirect(url_for("account.security"), 303)


@bp.route("/account/identities/accept/<token>", methods=["GET", "POST"])
@signed_in
def accept_identity(token: str) -> Answer:
    if not external_identities.offered(current_person(), Secret(token)):
        return render_template("account/link_used.html", again="account.security", what="Account security"), 410
    form = PlainForm()
    if form.validate_on_submit():
        try:
            external_identities.accept(current_person(), Secret(token), current_actor())
        except (IdentityRefused, InvalidInput) as error:
            form.fault("identity", error.message)
        else:
            flash(f"You can sign in with {external_identities.provider().name} from now on.")
            return redirect(url_for("account.security"), 303)
    name = external_identities.provider().name
    return page_of("account/accept_identity.html", form, token=token, name=name, person=current_person())


@bp.post("/account/identities/<identity_id>/remove")
@signed_in
@recently_proved
def remove_identity(identity_id: str) -> Response:
    try:
        external_identities.remove(current_person(), identity_id, current_actor())
    except InvalidInput as error:
        flash(error.message, "warn")
    else:
        flash("Disconnected.")
    return redirect(url_for("account.security"), 303)


def _leave(next_path: str | None, connect_to: User | None = None) -> Response:
    begun = external_identities.begin(next_path=next_path, connect_to=connect_to)
    session[KEPT] = begun.token.reveal()
    return redirect(begun.url, 303)


def _refused(sentence: str) -> str:
    return render_template("account/elsewhere_refused.html", sentence=sentence)
