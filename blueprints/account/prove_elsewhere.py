"""Proving at the identity provider who is there, for who has nothing to show here; their form comes along, sealed."""

from __future__ import annotations

from flask import redirect, render_template, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints import proving
from blueprints.account.limits import limited_by_address
from blueprints.account.pages import Answer
from blueprints.account.routes import bp
from blueprints.guards import current_session, local_path, signed_in
from services import external_identities, proof
from services.errors import PortalError
from services.external_identities import Way
from services.identity_claims import IdentityRefused, ProviderAway
from services.parts import parts
from services.proof import NotProvedThere

# Where this browser's cookie keeps the token of its way to the provider.
KEPT = "identity_attempt"


@bp.post("/prove/elsewhere")
@limited_by_address
@signed_in
def prove_elsewhere() -> Answer | Response:
    goal = local_path(request.form.get("next"))
    carried = request.form.get(proving.CARRIED)
    if carried is not None:
        # What is kept on the way is a form of ours, and no larger than one.
        parts().form_seal.open(carried, proving.place_of(current_session(), goal or ""))
    try:
        begun = proof.begin_at_provider(current_session(), next_path=goal, carried=carried)
    except ProviderAway as error:
        return _asked_again(error, goal, carried)
    session[KEPT] = begun.token.reveal()
    name = external_identities.provider().name
    answer = Response(render_template("account/to_provider.html", provider=name, url=begun.url), mimetype="text/html")
    # Not a redirect: the policy lets no form lead to another host.
    answer.headers["Refresh"] = f"0; url={begun.url}"
    return answer


def proved_elsewhere(way: Way) -> Answer:
    """Judge what the provider says, and go on with the form or page that waited. Raises IdentityRefused."""
    # Whoever began this must be the one who is back.
    if not current_user.is_authenticated or current_session().id != way.proof_of:
        raise IdentityRefused
    answer: Answer = _judged(way)
    return answer


@signed_in
def _judged(way: Way) -> Answer:
    try:
        claims = external_identities.claims_of(way, request.args.to_dict())
        token = proof.with_provider(current_session(), way, claims)
    except ProviderAway as error:
        return _asked_again(error, way.next_path, way.carried)
    except (IdentityRefused, NotProvedThere):
        return _asked_again(NotProvedThere(), way.next_path, way.carried)
    proving.keep(token)
    goal = way.next_path or url_for("account.prove")
    if way.carried is None:
        return redirect(goal, 303)
    return render_template("account/proved.html", action=goal, carried=way.carried, carried_name=proving.CARRIED)


def _asked_again(error: PortalError, goal: str | None, carried: str | None) -> Answer:
    form = proving.ProofForm(formdata=None)
    form.fault("provider", error.message)
    page, _ = proving.question(current_session(), form, goal or url_for("account.prove"), carried)
    return page, 503 if isinstance(error, ProviderAway) else 422
