"""Access requests: the queue, what was decided, and deciding."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.guards import operator_actor, operator_required, recently_proved
from blueprints.operator import bp
from blueprints.operator.forms import DeclineForm, GrantForm
from models import AccessRequest
from services import access_requests, customers
from services.access_requests import AlreadyDecided
from services.errors import InvalidInput
from services.parts import parts

Answer = str | Response | tuple[str, int]


@bp.get("")
@operator_required
def home() -> Response:
    return redirect(url_for("operator.requests"), 303)


@bp.get("/requests")
@operator_required
def requests() -> str:
    page = access_requests.queue(request.args.get("page", 1, type=int))
    return render_template("operator/requests.html", page=page, plans=parts().plans, waiting=True)


@bp.get("/requests/decided")
@operator_required
def decided_requests() -> str:
    page = access_requests.decided(request.args.get("page", 1, type=int))
    return render_template("operator/requests.html", page=page, plans=parts().plans, waiting=False)


@bp.get("/requests/<int:number>")
@operator_required
def show_request(number: int) -> Answer:
    return _page(access_requests.get(number))


@bp.post("/requests/<int:number>/grant")
@operator_required
@recently_proved
def grant_request(number: int) -> Answer:
    found = access_requests.get(number)
    form = GrantForm()
    if form.validate_on_submit():
        try:
            granted = access_requests.grant(
                found.number,
                plan=request.form.get("plan", ""),
                requests_per_minute=form.limit(),
                plan_words=form.words.data or "",
                answer=form.answer.data or "",
                actor=operator_actor(),
            )
        except InvalidInput as error:
            form.take(error)
        except AlreadyDecided as error:
            return _too_late(number, error)
        else:
            title = parts().plans.plan_named(granted.granted_plan or "").title
            flash(f"{granted.workspace.name} is on {title}. The answer goes to {granted.reply_to}.")
            return redirect(url_for("operator.requests"), 303)
    return _page(access_requests.get(number), grant=form), 422


@bp.post("/requests/<int:number>/decline")
@operator_required
@recently_proved
def decline_request(number: int) -> Answer:
    found = access_requests.get(number)
    form = DeclineForm()
    if form.validate_on_submit():
        try:
            access_requests.decline(found.number, answer=form.why.data or "", actor=operator_actor())
        except InvalidInput as error:
            form.fault("why", error.fields["answer"])
        except AlreadyDecided as error:
            return _too_late(number, error)
        else:
            flash(f"Request {number} is declined. The reason goes to {found.reply_to}.")
            return redirect(url_for("operator.requests"), 303)
    return _page(access_requests.get(number), decline=form), 422


def _too_late(number: int, error: AlreadyDecided) -> Response:
    flash(error.message, "warn")
    return redirect(url_for("operator.show_request", number=number), 303)


def _page(found: AccessRequest, grant: GrantForm | None = None, decline: DeclineForm | None = None) -> str:
    """The page of a request; the form that was refused, if one was, tells what is wrong."""
    plans = parts().plans
    (facts,) = customers.facts_of([found.workspace])
    return render_template(
        "operator/request.html",
        request=found,
        facts=facts,
        plans=plans,
        # The one that was asked for is the first button.
        offers=sorted(access_requests.offers(), key=lambda plan: plan.name != found.plan),
        form=grant or decline,
        grant=grant or GrantForm(data={"words": found.workspace.plan_words or ""}),
        decline=decline or DeclineForm(),
    )
