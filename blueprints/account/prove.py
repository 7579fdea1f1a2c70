"""The page that asks who is there again, before a delicate act."""

from __future__ import annotations

from flask import redirect, request, url_for
from werkzeug.wrappers import Response

from blueprints import proving
from blueprints.account.limits import limited_by_address
from blueprints.account.pages import Answer
from blueprints.account.routes import bp
from blueprints.account.sign_in import challenge
from blueprints.guards import current_actor, current_session, local_path, signed_in
from services import proof


@bp.route("/prove", methods=["GET", "POST"])
@limited_by_address
@signed_in
def prove() -> Answer:
    login_session = current_session()
    form = proving.ProofForm()
    if proof.is_recent(login_session):
        return _onwards()
    if form.validate_on_submit() and proving.answered(login_session, form, current_actor()):
        return _onwards()
    here = url_for("account.prove", next=local_path(request.args.get("next")))
    return proving.question(login_session, form, here)


@bp.post("/prove/passkey")
@limited_by_address
@signed_in
def prove_passkey_options() -> Response:
    return challenge(*proof.passkey_options(current_session()))


def _onwards() -> Response:
    return redirect(local_path(request.args.get("next")) or url_for("overview.show"), 303)
