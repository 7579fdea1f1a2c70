"""The question who is there, before a delicate act. ``guards.recently_proved`` and the page of its own ask it.

A form that comes too late is answered by the question, at the form's own address: its fields are carried in the page,
sealed for this session and this address, and the act goes on with them once the answer is right.
"""

from __future__ import annotations

from flask import redirect, render_template, request, session, url_for
from flask_login import current_user, login_user
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.wrappers import Response
from wtforms import HiddenField, PasswordField, StringField

from blueprints.forms import PortalForm, stripped
from models import LoginSession, User
from services import external_identities, passkeys, proof, second_factor
from services.actor import Actor
from services.errors import WrongCredentials
from services.parts import parts
from services.secret import Secret

Answer = Response | tuple[str, int]

# The name of the field that carries a form. No form of the portal has one like it.
CARRIED = "proof_carried"


class ProofForm(PortalForm):
    """One answer of three; the page offers those that this person has."""

    proof_password = PasswordField("Password", render_kw={"autocomplete": "current-password"})
    proof_code = StringField(
        "Code from your app, or a recovery code",
        filters=[stripped],
        render_kw={"autocomplete": "one-time-code", "spellcheck": "false", "autocapitalize": "none"},
    )
    proof_passkey = HiddenField()


def hold_up(login_session: LoginSession, actor: Actor) -> Answer | None:
    """Return the question when the last proof is too old, else None: the act may go on, with the form it was sent.

    Raises InvalidRequest for a carried form that is not of this session, or too old.
    """
    carried = request.form.get(CARRIED) if request.method == "POST" else None
    if carried is None and proof.is_recent(login_session):
        return None
    if request.method != "POST":
        return redirect(url_for("account.prove", next=request.full_path.rstrip("?")), 303)
    place = place_of(login_session, request.full_path)
    if carried is None:
        carried = parts().form_seal.seal(list(request.form.items(multi=True)), place)
        return question(login_session, ProofForm(formdata=None), request.full_path, carried)
    fields = parts().form_seal.open(carried, place)
    if not proof.is_recent(login_session):
        form = ProofForm()
        if not answered(login_session, form, actor):
            return question(login_session, form, request.full_path, carried)
    # What the view reads is what was sent to it.
    request.form = ImmutableMultiDict(fields)
    return None


def place_of(login_session: LoginSession, address: str) -> str:
    """Return for where a form is sealed: its session and the address it was sent to."""
    return f"{login_session.id} {address}"


def answered(login_session: LoginSession, form: ProofForm, actor: Actor) -> bool:
    """Judge an answer; what is wrong with it stands in the form."""
    wanted = "proof_code" if second_factor.is_on(login_session.user) else "proof_password"
    try:
        if form.proof_passkey.data:
            wanted = "form"
            token = proof.with_passkey(login_session, pending_challenge(), form.proof_passkey.data, actor)
        elif wanted == "proof_code":
            token = proof.with_code(login_session, form.proof_code.data or "", actor)
        else:
            token = proof.with_password(login_session, Secret(form.proof_password.data or ""))
    except WrongCredentials as error:
        form.fault(wanted, error.message.rstrip("."))
        return False
    keep(token)
    return True


def keep(token: Secret) -> None:
    """Let this browser go on with its session under a new token."""
    principal = current_user._get_current_object()
    principal.token = token
    login_user(principal)


def question(login_session: LoginSession, form: ProofForm, action: str, carried: str | None = None) -> tuple[str, int]:
    """Return the page that asks who is there; ``action`` is where the answer goes."""
    user = login_session.user
    standing = second_factor.standing(user)
    if not standing.app:
        form.proof_code.label.text = "Recovery code"
    page = render_template(
        "account/prove.html",
        form=form,
        action=action,
        carried=carried,
        carried_name=CARRIED,
        standing=standing,
        provider=_provider_name(user),
        has_password=bool(user.password_hash),
        site=parts().relying_party if passkeys.are_possible() else None,
    )
    return page, 422 if form.errors else 200


def _provider_name(user: User) -> str | None:
    return external_identities.provider().name if proof.is_at_provider(user) else None


def keep_challenge(token: Secret) -> None:
    """Keep the token of a passkey's challenge in this browser."""
    session[_CHALLENGE] = token.reveal()


def pending_challenge() -> Secret | None:
    """Return the token of the challenge that this browser was given last, once."""
    token = session.pop(_CHALLENGE, None)
    return Secret(token) if isinstance(token, str) else None


_CHALLENGE = "passkey_challenge"
