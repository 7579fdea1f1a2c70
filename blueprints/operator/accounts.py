"""Accounts: workspaces and people, and what an operator may do to them."""

from __future__ import annotations

from collections.abc import Callable

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.forms import stripped
from blueprints.guards import current_person, operator_actor, operator_required, recently_proved
from blueprints.operator import bp
from blueprints.operator.forms import PlanForm, ReasonForm
from services import access_requests, customers, workspaces
from services.errors import InvalidInput
from services.parts import parts

Answer = str | Response | tuple[str, int]

_WORDS_LENGTH = 100


@bp.get("/accounts")
@operator_required
def list_workspaces() -> str:
    words = _words()
    page = customers.find_workspaces(words, request.args.get("page", 1, type=int))
    return render_template("operator/workspaces.html", page=page, words=words, plans=parts().plans)


@bp.get("/accounts/people")
@operator_required
def list_people() -> str:
    words = _words()
    page = customers.find_users(words, request.args.get("page", 1, type=int))
    return render_template("operator/people.html", page=page, words=words)


@bp.get("/workspaces/<workspace_id>")
@operator_required
def show_workspace(workspace_id: str) -> str:
    workspace = workspaces.get(workspace_id)
    (facts,) = customers.facts_of([workspace])
    return render_template(
        "operator/workspace.html",
        facts=facts,
        members=customers.members_of(workspace),
        history=access_requests.history_of(workspace),
        plans=parts().plans,
    )


@bp.route("/workspaces/<workspace_id>/plan", methods=["GET", "POST"])
@operator_required
@recently_proved
def set_plan(workspace_id: str) -> Answer:
    workspace, plans = workspaces.get(workspace_id), parts().plans
    form = PlanForm(workspace)
    (facts,) = customers.facts_of([workspace])
    if form.validate_on_submit():
        chosen = plans.plan_named(form.plan.data or "")
        ends_access = plans.has_api_access(workspace) and not chosen.api_access
        try:
            limit = form.limit()
            if form.reason.data and ends_access and chosen.name in plans.plans and form.confirmed.data != chosen.name:
                return render_template("operator/downgrade.html", facts=facts, chosen=chosen, plans=plans, form=form)
            customers.set_plan(
                workspace,
                chosen.name,
                # A plan without access has nothing to limit; what stood there belonged to the plan before.
                requests_per_minute=None if ends_access else limit,
                words=form.words.data or "",
                reason=form.reason.data or "",
                actor=operator_actor(),
            )
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"{workspace.name} is on {chosen.title}.")
            return redirect(url_for("operator.show_workspace", workspace_id=workspace_id), 303)
    page = render_template("operator/set_plan.html", form=form, facts=facts, plans=plans)
    return page, 422 if form.errors else 200


@bp.get("/people/<user_id>")
@operator_required
def show_person(user_id: str) -> str:
    user = customers.get_user(user_id)
    return render_template(
        "operator/person.html",
        user=user,
        memberships=workspaces.memberships_of(user),
        plans=parts().plans,
        is_self=user.id == current_person().id,
    )


@bp.route("/people/<user_id>/close", methods=["GET", "POST"])
@operator_required
@recently_proved
def close_account(user_id: str) -> Answer:
    return _close_or_reopen(user_id, customers.close_account, closing=True)


@bp.route("/people/<user_id>/reopen", methods=["GET", "POST"])
@operator_required
@recently_proved
def reopen_account(user_id: str) -> Answer:
    return _close_or_reopen(user_id, customers.reopen_account, closing=False)


def _close_or_reopen(user_id: str, act: Callable[..., None], *, closing: bool) -> Answer:
    user = customers.get_user(user_id)
    form = ReasonForm()
    if form.validate_on_submit():
        try:
            act(user, reason=form.reason.data or "", actor=operator_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"The account {user.email} is {'closed' if closing else 'open again'}.")
            return redirect(url_for("operator.show_person", user_id=user_id), 303)
    elif request.method == "GET" and (user.closed_at is not None) == closing:
        return redirect(url_for("operator.show_person", user_id=user_id), 303)
    memberships = workspaces.memberships_of(user)
    page = render_template("operator/close.html", form=form, user=user, memberships=memberships, closing=closing)
    return page, 422 if form.errors else 200


def _words() -> str:
    return stripped(request.args.get("q"))[:_WORDS_LENGTH]
