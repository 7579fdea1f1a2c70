"""The playground and the quickstart."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, current_app, g, render_template, request

from blueprints.guards import current_actor, current_role, current_workspace, role_required
from blueprints.playground.forms import AskForm
from blueprints.presenters import provider_title
from services import playground
from services.errors import AlreadyDone, PortalError
from services.gateway.brain import ALIASES
from services.parts import parts
from services.permissions import may_create_keys

bp = Blueprint("playground", __name__)

Page = tuple[str, int]


@bp.get("/playground")
@role_required("viewer")
def show() -> Page:
    form = AskForm()
    form.model.data = request.args.get("model", "")[:200] or _first_model()
    return _page(form)


@bp.post("/playground")
@role_required("developer")
def ask() -> Page:
    form = AskForm()
    if not form.validate_on_submit():
        return _page(form, status=422)
    actor = current_actor()
    body = playground.request_body(form.model.data or "", form.system.data or "", form.message.data or "")
    number = form.number(actor.id or "")
    try:
        answer = playground.ask(current_workspace(), body, actor=actor, request_id=g.request_id, number=number)
    except AlreadyDone as done:
        return _page(form, repeated=done.object_id)
    except PortalError as refusal:
        g.error_code = refusal.code
        return _page(form, status=refusal.status, refusal=refusal, request_id=g.request_id, body=body)
    return _page(form, answer=answer, body=body)


@bp.get("/quickstart")
@role_required("viewer")
def quickstart() -> str:
    workspace = current_workspace()
    simulated = playground.is_simulated(workspace)
    return render_template(
        "playground/quickstart.html",
        body=_as_code(playground.request_body(_first_model(), "", "Hello, world!")),
        paused=simulated,
        offer=parts().plans.first_with_api_access,
        may_create=may_create_keys(current_role()) and not simulated,
    )


def _page(form: AskForm, *, status: int = 200, body: dict[str, Any] | None = None, **shown: Any) -> Page:
    workspace = current_workspace()
    page = render_template(
        "playground/show.html",
        form=form,
        models=[_first_model(), *playground.known_models(workspace)],
        simulated=playground.is_simulated(workspace),
        may_ask=playground.may_ask(current_role()),
        offer=parts().plans.first_with_api_access,
        provider_title=provider_title,
        body=body and _as_code(body),
        **shown,
    )
    return page, status


def _first_model() -> str:
    """Return the name under which a model is chosen for the caller: the one that goes with the brand, if any does."""
    brand = str(current_app.config["BRAND"]).lower()
    return next((alias for alias in ALIASES if alias.startswith(brand)), ALIASES[-1])


def _as_code(body: dict[str, Any]) -> dict[str, str]:
    """Return the request as it is written in a shell, in Python and in JavaScript."""
    text = json.dumps(body, indent=2, ensure_ascii=False)
    return {
        # Inside single quotes a shell takes everything as it is but the quote itself.
        "shell": text.replace("'", "'\\''"),
        "model": json.dumps(body["model"], ensure_ascii=False),
        # A JSON text is the same in Python and in JavaScript: there is no true, false or null in it.
        "messages": json.dumps(body["messages"], indent=2, ensure_ascii=False),
    }
