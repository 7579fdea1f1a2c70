"""Requests for a plan: an owner asks by Contact sales, an operator grants or declines.

A request, its mail to sales and its audit entry are one transaction; so are a decision, the change of plan, the audit
entries and the mail back. A workspace has at most one open request.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, or_, select

from extensions import db
from models import AccessRequest, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit, idempotency, mail, workspaces
from services.actor import Actor
from services.errors import AlreadyDone, InvalidInput, InvalidRequest, NotFound, RateLimited
from services.mail_transport import is_address
from services.pages import Page, page_of
from services.parts import parts
from services.plans import Plan

OPEN, GRANTED, DECLINED, WITHDRAWN = "open", "granted", "declined", "withdrawn"
WORDS_LENGTH = 2000
# Whoever sends and withdraws again and again fills the mailbox of sales.
MOST_IN_A_DAY = 5
_DAY = timedelta(days=1)


class AlreadyDecided(InvalidRequest):
    """Somebody else was faster: the request is not open any more."""

    status, code = 409, "already_decided"


# ---- what is asked for


def volumes() -> dict[str, str]:
    """Return the choices for how many requests per minute are expected, by name, in words."""
    first, most = offers()[0], offers()[-1]
    limit = first.requests_per_minute
    tenth = max(1, limit // 10)
    beyond = f" ({most.title})" if most is not first else ""
    return {
        "few": f"Up to {tenth:,}",
        "some": f"{tenth:,} to {limit:,}",
        "more": f"More than {limit:,}{beyond}",
        "unsure": "Not sure yet",
    }


def plan_wanted(workspace: Workspace, volume: str) -> Plan:
    """Return the plan that a request is about: the first with API access, unless more is needed than it gives."""
    more = volume == "more" or parts().plans.has_api_access(workspace)
    return offers()[-1 if more else 0]


def offers() -> list[Plan]:
    """Return the plans that can be granted: those with API access, the cheapest first."""
    return [plan for plan in parts().plans.plans.values() if plan.api_access]


# ---- the workspace's side


def ask(
    workspace: Workspace,
    *,
    use: str,
    volume: str,
    reply_to: str,
    actor: Actor,
    one_time_number: str | None = None,
) -> AccessRequest:
    """Put a request into the operator's queue and tell sales by mail.

    ``volume`` is one of ``volumes()``. Raises InvalidInput; AlreadyDone with the id of the request that is open, or
    that the same form has sent before; RateLimited after too many in a day.
    """
    _check(use, volume, reply_to)
    workspace_id = workspace.id
    with transaction() as session:
        workspace = workspaces.locked(workspace_id)
        idempotency.refuse_repetition(workspace, one_time_number)
        if found := open_of(workspace):
            raise AlreadyDone(found.id)
        _refuse_too_many(workspace, actor)
        one_at_a_time("access_request:number")
        request = AccessRequest(
            id=new_id("ask"),
            number=(session.scalar(select(func.max(AccessRequest.number))) or 0) + 1,
            workspace_id=workspace.id,
            plan=plan_wanted(workspace, volume).name,
            use=use.strip(),
            volume=volumes()[volume],
            reply_to=reply_to.strip(),
            asked_by_id=actor.user_id,
            asked_by_name=actor.name,
            state=OPEN,
            created_at=now(),
        )
        session.add(request)
        idempotency.remember(workspace, one_time_number, request.id)
        session.flush()
        _record(request, actor, "access_request:send", volume=request.volume)
        _tell_sales(request, workspace)
    return request


def withdraw(workspace: Workspace, request_id: str, *, actor: Actor) -> AccessRequest:
    """Take an open request of the workspace back. Raises NotFound, AlreadyDecided."""
    found = db.session.get(AccessRequest, request_id)
    if found is None or found.workspace_id != workspace.id:
        raise NotFound
    with transaction():
        request = _locked_open(found.number)
        request.state, request.decided_at, request.decided_by_name = WITHDRAWN, now(), actor.name
        _record(request, actor, "access_request:withdraw")
    return request


def open_of(workspace: Workspace) -> AccessRequest | None:
    """Return the workspace's open request."""
    query = select(AccessRequest).where(AccessRequest.workspace_id == workspace.id, AccessRequest.state == OPEN)
    return db.session.scalars(query).first()


def latest_of(workspace: Workspace) -> AccessRequest | None:
    """Return the workspace's newest request, whatever became of it."""
    query = select(AccessRequest).where(AccessRequest.workspace_id == workspace.id)
    return db.session.scalars(query.order_by(AccessRequest.number.desc()).limit(1)).first()


def history_of(workspace: Workspace, number: int = 1) -> Page[AccessRequest]:
    """Return a page of the workspace's requests, the newest first."""
    query = select(AccessRequest).where(AccessRequest.workspace_id == workspace.id)
    return page_of(query.order_by(AccessRequest.number.desc()), number)


# ---- the operator's side


def get(number: int) -> AccessRequest:
    """Return any request, for the operator. Raises NotFound."""
    # No column of either database holds a greater one.
    query = select(AccessRequest).where(AccessRequest.number == min(number, 2**31 - 1))
    found = db.session.scalars(query).first()
    if found is None:
        raise NotFound
    return found


def queue(number: int = 1) -> Page[AccessRequest]:
    """Return a page of the open requests of all workspaces, the oldest first."""
    query = select(AccessRequest).where(AccessRequest.state == OPEN)
    return page_of(query.order_by(AccessRequest.number), number)


def decided(number: int = 1) -> Page[AccessRequest]:
    """Return a page of the requests that are no longer open, the last decided first."""
    query = select(AccessRequest).where(AccessRequest.state != OPEN)
    return page_of(query.order_by(AccessRequest.decided_at.desc(), AccessRequest.number.desc()), number)


def grant(
    number: int,
    *,
    plan: str,
    requests_per_minute: int | None = None,
    plan_words: str | None = None,
    answer: str = "",
    actor: Actor,
) -> AccessRequest:
    """Grant a request: the plan takes effect at once, and the answer goes out by mail.

    ``plan_words`` are the operator's words about the plan, such as when it is renewed. Raises NotFound, AlreadyDecided,
    InvalidInput.
    """
    _check_answer(answer)
    if plan in parts().plans.plans and not parts().plans.plan_named(plan).api_access:
        raise InvalidInput({"plan": "Grant a plan with API access, or decline the request"})
    get(number)
    with transaction():
        request = _locked_open(number)
        workspace = request.workspace
        _decide(request, GRANTED, answer, actor)
        request.granted_plan = plan
        _record(request, actor, "access_request:grant", plan=plan, answer=request.answer)
        workspaces.set_plan(
            workspace,
            plan,
            requests_per_minute=requests_per_minute,
            words=plan_words,
            reason=f"Request {request.number}",
            actor=actor,
        )
        title = parts().plans.plan_of(workspace).title
        mail.queue(
            request.reply_to,
            f"{workspace.name} is on {title}",
            "access_granted",
            workspace.id,
            **_words_of(request, workspace),
            plan_title=title,
            requests_per_minute=parts().plans.requests_per_minute(workspace),
            plan_words=workspace.plan_words or "",
        )
    return request


def decline(number: int, *, answer: str, actor: Actor) -> AccessRequest:
    """Decline a request; the reason is sent. Raises NotFound, AlreadyDecided, InvalidInput."""
    if not answer.strip():
        raise InvalidInput({"answer": "Say why: the reason is sent to who has asked"})
    _check_answer(answer)
    get(number)
    with transaction():
        request = _locked_open(number)
        workspace = request.workspace
        _decide(request, DECLINED, answer, actor)
        _record(request, actor, "access_request:decline", answer=request.answer)
        mail.queue(
            request.reply_to,
            f"About request {request.number} of {workspace.name}",
            "access_declined",
            workspace.id,
            **_words_of(request, workspace),
        )
    return request


# ---- parts of the above


def _check(use: str, volume: str, reply_to: str) -> None:
    faults = {}
    if not use.strip():
        faults["use"] = "Say in a sentence what you will use the API for"
    elif len(use.strip()) > WORDS_LENGTH:
        faults["use"] = f"Use at most {WORDS_LENGTH:,} characters"
    if volume not in volumes():
        faults["volume"] = "Choose one of the numbers"
    if len(reply_to.strip()) > mail.RECIPIENT_LENGTH or not is_address(reply_to.strip()):
        faults["reply_to"] = "Enter an e-mail address like name@example.com"
    if faults:
        raise InvalidInput(faults)


def _check_answer(answer: str) -> None:
    if len(answer.strip()) > WORDS_LENGTH:
        raise InvalidInput({"answer": f"Use at most {WORDS_LENGTH:,} characters"})


def _refuse_too_many(workspace: Workspace, actor: Actor) -> None:
    """Count those of the workspace and of the person: who makes workspaces gets no further."""
    whose = AccessRequest.workspace_id == workspace.id
    if actor.user_id is not None:
        whose = or_(whose, AccessRequest.asked_by_id == actor.user_id)
    query = select(AccessRequest.created_at).where(whose, AccessRequest.created_at > now() - _DAY)
    lately = list(db.session.scalars(query.order_by(AccessRequest.created_at)))
    if len(lately) >= MOST_IN_A_DAY:
        free_at = lately[len(lately) - MOST_IN_A_DAY] + _DAY
        raise RateLimited(max(1, int((free_at - now()).total_seconds())))


def _locked_open(number: int) -> AccessRequest:
    """Return an open request for an act that ends it; another act on it waits. Raises NotFound, AlreadyDecided."""
    # The workspace first: every act on one takes its row before what belongs to it.
    workspaces.locked(get(number).workspace_id)
    query = select(AccessRequest).where(AccessRequest.number == number).with_for_update(of=AccessRequest)
    request = db.session.scalars(query.execution_options(populate_existing=True)).first()
    if request is None:
        raise NotFound
    if request.state != OPEN:
        raise AlreadyDecided(f"Request {number} was {request.state} by {request.decided_by_name} already.")
    return request


def _decide(request: AccessRequest, state: str, answer: str, actor: Actor) -> None:
    request.state, request.decided_at, request.decided_by_name = state, now(), actor.name
    request.answer = answer.strip() or None
    db.session.flush()


def _record(request: AccessRequest, actor: Actor, action: str, **details: object) -> None:
    name = f"Request {request.number}"
    audit.record(request.workspace_id, actor, action, object_id=request.id, object_name=name, details=details)


def _tell_sales(request: AccessRequest, workspace: Workspace) -> None:
    title = parts().plans.plan_named(request.plan).title
    mail.queue(
        parts().sales_email,
        f"Request {request.number}: {workspace.name} asks for {title}",
        "access_asked",
        workspace.id,
        **_words_of(request, workspace),
        plan_title=title,
        present_title=parts().plans.plan_of(workspace).title,
        volume=request.volume,
        reply_to=request.reply_to,
        asked_by=request.asked_by_name,
    )


def _words_of(request: AccessRequest, workspace: Workspace) -> dict[str, object]:
    return {
        "number": request.number,
        "at": request.created_at,
        "workspace_name": workspace.name,
        "slug": workspace.slug,
        "use_lines": request.use.splitlines(),
        "answer_lines": (request.answer or "").splitlines(),
    }
