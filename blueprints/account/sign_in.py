"""Signing in, step by step, and signing out."""

from __future__ import annotations

from flask import Response as JsonResponse
from flask import flash, redirect, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import BooleanField, HiddenField, StringField

from blueprints import proving
from blueprints.account.forms import SignInForm
from blueprints.account.limits import limited_by_account, limited_by_address
from blueprints.account.pages import Answer, onwards, page_of
from blueprints.account.routes import bp
from blueprints.forms import PortalForm, stripped
from blueprints.guards import begin_session, client_address, client_name, end_session, local_path, public
from services import passkeys, sign_in
from services.errors import WrongCredentials
from services.parts import parts
from services.secret import Secret
from services.sign_in import SignInOver, Step

_ATTEMPT = "sign_in_attempt"


class CodeForm(PortalForm):
    """The second step: a code of the app or a recovery code, or what a passkey has answered."""

    code = StringField(
        "Code from your app, or a recovery code",
        filters=[stripped],
        render_kw={"autocomplete": "one-time-code", "spellcheck": "false", "autocapitalize": "none"},
    )
    passkey = HiddenField()


class PasskeyForm(PortalForm):
    """What a passkey has answered; the script fills it in."""

    passkey = HiddenField()
    remember = BooleanField()


@bp.route("/sign-in", methods=["GET", "POST"], endpoint="sign_in")
@limited_by_address
@limited_by_account
@public("whoever has an account")
def first_step() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    form = SignInForm()
    if form.validate_on_submit():
        try:
            email, password = form.credentials()
            step = sign_in.with_password(email, password, remembered=bool(form.remember.data), **_here())
        except WrongCredentials as error:
            form.fault("email", error.message.rstrip("."))
        else:
            return go_on(step, request.args.get("next"))
    return _sign_in_page(form)


def go_on(step: Step, next_path: str | None = None) -> Response:
    """Answer a first factor that was right: ask for the second one, or begin the session.

    Leads to ``next_path`` in the end, or to where this request says.
    """
    next_path = local_path(next_path or request.args.get("next"))
    if step.attempt is not None:
        session[_ATTEMPT] = step.attempt.reveal()
        return redirect(url_for("account.second_step", next=next_path), 303)
    assert step.session is not None
    begin_session(step.session)
    return redirect(next_path or url_for("overview.show"), 303)


@bp.route("/sign-in/code", methods=["GET", "POST"])
@limited_by_address
@public("whoever has shown a first factor; the attempt in the cookie says who")
def second_step() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    form = CodeForm()
    if form.validate_on_submit():
        try:
            token = _second_factor(form)
        except SignInOver:
            return _begin_again()
        except WrongCredentials as error:
            form.fault("form" if form.passkey.data else "code", error.message.rstrip("."))
        else:
            begin_session(token)
            return onwards()
    try:
        waiting = sign_in.waiting(_attempt())
    except SignInOver:
        return _begin_again()
    if not waiting.standing.app:
        form.code.label.text = "Recovery code"
    site = parts().relying_party if waiting.standing.passkeys else None
    return page_of("account/second_step.html", form, waiting=waiting, site=site)


@bp.post("/sign-in/code/passkey")
@limited_by_address
@public("whoever has shown a first factor; the attempt in the cookie says who")
def second_step_options() -> Response:
    return challenge(*sign_in.passkey_options(_attempt()))


@bp.post("/sign-in/passkey/options")
@limited_by_address
@public("whoever has a passkey; the challenge names nobody")
def sign_in_passkey_options() -> Response:
    return challenge(*passkeys.begin_use(passkeys.SIGN_IN, None))


@bp.post("/sign-in/passkey")
@limited_by_address
@public("whoever has a passkey")
def sign_in_passkey() -> Answer:
    if current_user.is_authenticated:
        return onwards()
    form, page = PasskeyForm(), SignInForm(formdata=None)
    answer, remembered = form.passkey.data or "", bool(form.remember.data)
    try:
        token = sign_in.with_passkey(proving.pending_challenge(), answer, remembered=remembered, **_here())
    except WrongCredentials as error:
        page.fault("form", error.message.rstrip("."))
        return _sign_in_page(page)
    begin_session(token)
    return onwards()


@bp.post("/sign-out")
@public("who is signed out already loses nothing")
def sign_out() -> Response:
    end_session()
    flash("You are signed out.")
    return redirect(url_for("account.sign_in"), 303)


def challenge(token: Secret, options: str) -> Response:
    """Answer the script with what it asks the device."""
    proving.keep_challenge(token)
    return JsonResponse(options, content_type="application/json")


def _sign_in_page(form: SignInForm) -> tuple[str, int]:
    return page_of(
        "account/sign_in.html",
        form,
        site=parts().relying_party,
        passkey_form=PasskeyForm(formdata=None),
        sign_up_open=parts().sign_up_open,
        provider=parts().oidc,
    )


def _second_factor(form: CodeForm) -> Secret:
    if form.passkey.data:
        return sign_in.with_passkey_second(_attempt(), proving.pending_challenge(), form.passkey.data, **_here())
    return sign_in.with_code(_attempt(), form.code.data or "", **_here())


def _begin_again() -> Response:
    session.pop(_ATTEMPT, None)
    flash(SignInOver.message, "warn")
    return redirect(url_for("account.sign_in", next=local_path(request.args.get("next"))), 303)


def _attempt() -> Secret | None:
    token = session.get(_ATTEMPT)
    return Secret(token) if isinstance(token, str) else None


def _here() -> dict[str, str | None]:
    return {"address": client_address(), "client": client_name()}
