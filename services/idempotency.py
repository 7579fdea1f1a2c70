"""Requests that name themselves by a number, so that sending one again does nothing twice.

The first result is kept for 24 hours, as Stripe does (https://docs.stripe.com/api/idempotent_requests): which object
was made, never the answer, which may have held a secret.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select

from extensions import db
from models import IdempotencyRecord, Workspace
from models.base import delete_some, now, one_at_a_time
from services.errors import AlreadyDone, InvalidRequest

KEPT = timedelta(hours=24)


def refuse_repetition(workspace: Workspace, number: str | None, request_digest: bytes | None = None) -> None:
    """Raise AlreadyDone when the request with this number was carried out, InvalidRequest when another one was.

    Call it inside the act's transaction.
    """
    if number is None:
        return
    one_at_a_time(f"request:{workspace.id}:{number}")
    query = select(IdempotencyRecord).where(
        IdempotencyRecord.workspace_id == workspace.id,
        IdempotencyRecord.number == number,
        IdempotencyRecord.created_at >= now() - KEPT,
    )
    made = db.session.scalars(query).first()
    if made is None:
        return
    if made.request_digest != request_digest:
        # Not 409: clients retry that.
        raise InvalidRequest("This Idempotency-Key was used for a different request.", code="idempotency_key_reused")
    raise AlreadyDone(made.object_id)


def remember(workspace: Workspace, number: str | None, object_id: str, request_digest: bytes | None = None) -> None:
    """Note, in the act's own transaction, what the request with this number made."""
    if number is None:
        return
    db.session.execute(
        delete(IdempotencyRecord).where(
            IdempotencyRecord.workspace_id == workspace.id, IdempotencyRecord.created_at < now() - KEPT
        )
    )
    db.session.add(
        IdempotencyRecord(
            workspace_id=workspace.id,
            number=number,
            request_digest=request_digest,
            object_id=object_id,
            created_at=now(),
        )
    )


def forget_old() -> bool:
    """Forget requests whose result is not kept any more, some at a time; tell whether there may be more."""
    return delete_some(IdempotencyRecord, IdempotencyRecord.created_at < now() - KEPT)
