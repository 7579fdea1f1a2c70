"""Deliveries: each event to each endpoint that wants it, tried for a day, at least once, under one message id.

An event is given its deliveries after its act, in the background. Then several threads of every process send, one
delivery at a time for each endpoint: whoever holds the endpoint's lease. A delivery is claimed before it is sent; if
the process is killed meanwhile, it is sent again when the claim lapses, and the receiver knows it by its id. An
endpoint that failed last time is left alone for a moment, so that those that hang do not take all threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import and_, delete, func, literal, or_, select

from extensions import db
from models import Job, WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent, Workspace
from models.base import new_id, now, transaction
from services import audit, events, idempotency, leases, notices, webhook_sender, webhooks
from services.actor import SYSTEM, Actor
from services.errors import InvalidRequest, NotFound
from services.members import managers_of
from services.webhook_sender import Message, Outcome

_log = structlog.get_logger("webhooks")

# How long to wait after each failed try: a day in all.
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
PAUSES = (timedelta(seconds=5), 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 8 * _HOUR, 10 * _HOUR)
# Longer than a try can take. What a killed process had claimed is free after it.
CLAIM = timedelta(minutes=2)
# An endpoint that nothing reached for so long is disabled.
PATIENCE = timedelta(days=5)
_GONE = 410
_LONGEST_REST_SECONDS = 60.0
_AT_ONCE = 20
# Few, because who stops waits for one run of a task only.
_IN_A_ROW = 5
_ENDPOINTS_LOOKED_AT = 100

_waiting = and_(WebhookDelivery.delivered_at.is_(None), WebhookDelivery.failed_at.is_(None))


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A delivery that this process is about to try."""

    delivery_id: str
    message: Message


# ---- From events to deliveries


def fan_out() -> bool:
    """Give the oldest events their deliveries; tell whether there may be more."""
    query = select(WebhookEvent.id).where(WebhookEvent.queued_at.is_(None)).order_by(WebhookEvent.created_at)
    found = list(db.session.scalars(query.limit(_AT_ONCE)))
    for event_id in found:
        _fan_out(event_id)
    return len(found) == _AT_ONCE


def _fan_out(event_id: str) -> None:
    with transaction() as session:
        query = select(WebhookEvent).where(WebhookEvent.id == event_id, WebhookEvent.queued_at.is_(None))
        event = session.scalars(query.with_for_update(skip_locked=True)).first()
        if event is None:
            return
        # An endpoint that is being deleted is not waited for.
        endpoints = select(WebhookEndpoint).where(
            WebhookEndpoint.workspace_id == event.workspace_id,
            WebhookEndpoint.disabled_at.is_(None),
        )
        for endpoint in session.scalars(endpoints.with_for_update(read=True, key_share=True, skip_locked=True)):
            if events.wants(endpoint.events, event.kind):
                session.add(_new_delivery(endpoint.id, event.id))
        event.queued_at = now()


def _new_delivery(endpoint_id: str, event_id: str) -> WebhookDelivery:
    at = now()
    return WebhookDelivery(
        id=new_id("whd"), endpoint_id=endpoint_id, event_id=event_id, created_at=at, attempts=0, next_attempt_at=at
    )


# ---- Sending


def send_next() -> bool:
    """Send what is due for one endpoint that nobody is at; tell whether there was one."""
    for endpoint_id, failures in _due_endpoints():
        began_at, name = now(), lease_name(endpoint_id)
        if not leases.take(name, _rest_seconds(failures)):
            continue
        try:
            _work_through(endpoint_id)
        finally:
            leases.give_back(name, began_at)
        return True
    return False


def lease_name(endpoint_id: str) -> str:
    """Return the name of the lease whose holder sends to an endpoint."""
    return f"webhook/{endpoint_id}"


def _work_through(endpoint_id: str) -> None:
    """Send some of what is due, as long as it arrives."""
    for _ in range(_IN_A_ROW):
        claimed = _claim_next(endpoint_id)
        if claimed is None:
            return
        # Nobody else should have to wait for the database connection meanwhile.
        db.session.rollback()
        outcome = webhook_sender.send(claimed.message)
        _note(claimed, outcome)
        if not outcome.delivered:
            return


def _due_endpoints() -> list[tuple[str, int]]:
    """Return endpoints with something due, the longest waiting first, and how many deliveries each has failed."""
    query = (
        select(WebhookDelivery.endpoint_id, WebhookEndpoint.failures)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(_waiting, WebhookDelivery.next_attempt_at <= now(), WebhookEndpoint.disabled_at.is_(None))
        .group_by(WebhookDelivery.endpoint_id, WebhookEndpoint.failures)
        .order_by(func.min(WebhookDelivery.next_attempt_at))
    )
    return [(*row,) for row in db.session.execute(query.limit(_ENDPOINTS_LOOKED_AT))]


def _rest_seconds(failures: int) -> float:
    return min(_LONGEST_REST_SECONDS, 2.0 ** min(failures, 10)) if failures else 0.0


def _claim_next(endpoint_id: str) -> _Claimed | None:
    at = now()
    due = (WebhookDelivery.endpoint_id == endpoint_id, _waiting, WebhookDelivery.next_attempt_at <= at)
    with transaction() as session:
        endpoint = session.get(WebhookEndpoint, endpoint_id)
        if endpoint is None or endpoint.disabled_at is not None:
            return None
        query = select(WebhookDelivery).where(*due).order_by(WebhookDelivery.next_attempt_at).limit(1)
        delivery = session.scalars(query.with_for_update(skip_locked=True)).first()
        if delivery is None:
            return None
        delivery.attempts += 1
        delivery.next_attempt_at = at + CLAIM
        session.flush()
        return _Claimed(delivery.id, webhook_sender.message_of(endpoint, delivery.event))


def _note(claimed: _Claimed, outcome: Outcome) -> None:
    """Keep what came of a try. The endpoint's row before the delivery's, as whoever disables it does."""
    with transaction() as session:
        endpoint = session.get(WebhookEndpoint, claimed.message.endpoint_id, with_for_update={"key_share": True})
        delivery = session.get(WebhookDelivery, claimed.delivery_id, with_for_update=True)
        if endpoint is None or delivery is None:
            return
        session.add(_attempt(claimed.delivery_id, outcome))
        endpoint.last_delivery_at = now()
        if outcome.delivered:
            delivery.delivered_at, delivery.failed_at = now(), None
            endpoint.failing_since, endpoint.failures, endpoint.last_answer = None, 0, outcome.words
        else:
            _note_failure(endpoint, delivery, outcome)
        session.flush()
        _log.info(
            "webhook tried",
            endpoint=endpoint.id,
            delivery=delivery.id,
            attempt=delivery.attempts,
            status=outcome.status,
            delivered=outcome.delivered,
        )


def _attempt(delivery_id: str, outcome: Outcome) -> WebhookAttempt:
    return WebhookAttempt(
        delivery_id=delivery_id,
        at=outcome.at,
        duration_ms=outcome.duration_ms,
        status=outcome.status,
        error=outcome.error,
        answer=outcome.answer,
    )


def _note_failure(endpoint: WebhookEndpoint, delivery: WebhookDelivery, outcome: Outcome) -> None:
    if endpoint.failing_since is None:
        endpoint.failing_since, endpoint.failures = outcome.at, 1
    elif delivery.attempts == 1:
        endpoint.failures += 1
    endpoint.last_answer = outcome.words
    if delivery.attempts > len(PAUSES):
        delivery.failed_at = delivery.failed_at or now()
    else:
        delivery.next_attempt_at = now() + PAUSES[delivery.attempts - 1]
    if endpoint.disabled_at is not None:
        return
    if outcome.status == _GONE:
        _give_up(endpoint, "it answered 410 Gone")
    elif now() - endpoint.failing_since >= PATIENCE:
        _give_up(endpoint, f"nothing arrived for {PATIENCE.days} days")


def _give_up(endpoint: WebhookEndpoint, why: str) -> None:
    """Disable an endpoint that cannot be reached, and tell those who can put it right."""
    failing_since, last_answer = endpoint.failing_since, endpoint.last_answer
    webhooks.give_up(endpoint, why)
    name, details = endpoint.description or webhooks.host_of(endpoint), {"why": why}
    audit.record(
        endpoint.workspace_id, SYSTEM, "webhook:disable", object_id=endpoint.id, object_name=name, details=details
    )
    workspace = db.session.get_one(Workspace, endpoint.workspace_id)
    notices.send(
        workspace,
        managers_of(workspace),
        f"The webhook to {webhooks.host_of(endpoint)} is disabled",
        "webhook_disabled",
        endpoint_id=endpoint.id,
        host=webhooks.host_of(endpoint),
        why=why,
        failing_since=failing_since,
        last_answer=last_answer,
    )


# ---- By hand


def send_test(
    workspace: Workspace,
    endpoint_id: str,
    *,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> WebhookDelivery:
    """Queue an event ``webhook.test`` for one endpoint.

    Raises NotFound, InvalidRequest when the endpoint is disabled, AlreadyDone for a repeated number.
    """
    with transaction() as session:
        endpoint = _sendable(workspace, endpoint_id)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        event = events.make_test(workspace.id, endpoint.id)
        session.add(event)
        session.flush()
        delivery = _new_delivery(endpoint.id, event.id)
        session.add(delivery)
        idempotency.remember(workspace, one_time_number, delivery.id, request_digest)
        session.flush()
    return delivery


def redeliver(
    workspace: Workspace,
    endpoint_id: str,
    delivery_id: str,
    *,
    actor: Actor,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> WebhookDelivery:
    """Send an event again, whatever became of it, under the same message id; then retry as if it were new.

    Raises NotFound, InvalidRequest when the endpoint is disabled or the delivery is still being tried, AlreadyDone for
    a repeated number.
    """
    with transaction() as session:
        endpoint = _sendable(workspace, endpoint_id)
        delivery = get(endpoint, delivery_id)
        session.refresh(delivery, with_for_update=True)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        if delivery.delivered_at is None and delivery.failed_at is None:
            raise InvalidRequest("This delivery is still being tried.", code="delivery_in_progress")
        delivery.delivered_at = delivery.failed_at = None
        delivery.attempts, delivery.next_attempt_at = 0, now()
        idempotency.remember(workspace, one_time_number, delivery.id, request_digest)
        session.flush()
        name = endpoint.description or webhooks.host_of(endpoint)
        details = {"delivery": delivery.id}
        audit.record(workspace.id, actor, "webhook:redeliver", object_id=endpoint.id, object_name=name, details=details)
    return delivery


def _sendable(workspace: Workspace, endpoint_id: str) -> WebhookEndpoint:
    endpoint = webhooks.get(workspace, endpoint_id)
    db.session.refresh(endpoint, with_for_update={"key_share": True})
    if endpoint.disabled_at is not None:
        raise InvalidRequest("This endpoint is disabled. Enable it first.", code="webhook_disabled")
    return endpoint


# ---- The log


def page(
    endpoint: WebhookEndpoint, *, limit: int, after: str | None = None, offset: int = 0
) -> tuple[list[WebhookDelivery], bool]:
    """Return deliveries, the newest first, from after the one with that id, and whether more follow.

    Raises NotFound.
    """
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id)
    if after is not None:
        last = get(endpoint, after)
        same_moment = and_(WebhookDelivery.created_at == last.created_at, WebhookDelivery.id < last.id)
        query = query.where(or_(WebhookDelivery.created_at < last.created_at, same_moment))
    ordered = query.order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
    found = list(db.session.scalars(ordered.offset(offset).limit(limit + 1)))
    return found[:limit], len(found) > limit


def get(endpoint: WebhookEndpoint, delivery_id: str) -> WebhookDelivery:
    """Return a delivery to this endpoint. Raises NotFound for every other id."""
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.id == delivery_id)
    delivery = db.session.scalars(query).first()
    if delivery is None:
        raise NotFound
    return delivery


def attempts_of(deliveries: list[WebhookDelivery]) -> dict[str, list[WebhookAttempt]]:
    """Return the tries of deliveries by their id, the latest first."""
    found: dict[str, list[WebhookAttempt]] = {delivery.id: [] for delivery in deliveries}
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(found))
    for attempt in db.session.scalars(query.order_by(WebhookAttempt.id.desc())):
        found[attempt.delivery_id].append(attempt)
    return found


def state_of(delivery: WebhookDelivery) -> str:
    """Return ``delivered``, ``failed`` or ``waiting``."""
    if delivery.delivered_at is not None:
        return "delivered"
    return "waiting" if delivery.failed_at is None else "failed"


def next_attempt_of(delivery: WebhookDelivery) -> datetime | None:
    """Return when a delivery is tried next, None when it is not."""
    return delivery.next_attempt_at if state_of(delivery) == "waiting" else None


def forget_leases() -> None:
    """Remove the leases of endpoints that are no more."""
    living = select(literal("webhook/") + WebhookEndpoint.id)
    gone = and_(Job.name.like("webhook/%"), Job.name.not_in(living))
    if db.session.scalar(select(Job.name).where(gone).limit(1)) is not None:
        with transaction() as session:
            session.execute(delete(Job).where(gone))
