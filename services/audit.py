"""The audit log: entries are added in the transaction of the act they tell of, and chained by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from extensions import db
from models import AuditEvent, Workspace
from models.base import now, transaction
from services import events
from services.actor import Actor

_START = bytes(32)


def record(
    workspace_id: str,
    actor: Actor,
    action: str,
    *,
    object_id: str | None = None,
    object_name: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry such as ``key:create`` to the workspace's chain. Joins the act's transaction."""
    with transaction() as session:
        # Two acts at once must not both follow the same entry. A lock that lets foreign keys be checked meanwhile:
        # each of the two has already pointed at the workspace.
        session.execute(select(Workspace.id).where(Workspace.id == workspace_id).with_for_update(key_share=True))
        last = _last_entry(workspace_id)
        entry = AuditEvent(
            workspace_id=workspace_id,
            number=last.number + 1 if last else 1,
            at=now(),
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action,
            object_id=object_id,
            object_name=object_name,
            details=dict(details or {}),
            address=actor.address,
            client=actor.client,
        )
        entry.hash = _hash(last.hash if last else _START, entry)
        session.add(entry)
        session.flush()
        events.note(entry)


def latest(workspace: Workspace, *, limit: int, object_id: str | None = None) -> list[AuditEvent]:
    """Return the last entries of the workspace, or those about one object, the latest first."""
    query = select(AuditEvent).where(AuditEvent.workspace_id == workspace.id)
    if object_id is not None:
        query = query.where(AuditEvent.object_id == object_id)
    return list(db.session.scalars(query.order_by(AuditEvent.number.desc()).limit(limit)))


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry of a workspace that is not as it was written, or is missing."""

    workspace: str
    number: int


def first_breaks() -> Iterator[Break]:
    """Check every workspace's chain; yield the first broken entry of each that has one."""
    for workspace in db.session.scalars(select(Workspace).order_by(Workspace.slug)).all():
        number = _first_break(workspace.id)
        if number is not None:
            yield Break(workspace.slug, number)


def _first_break(workspace_id: str) -> int | None:
    before, expected = _START, 1
    query = select(AuditEvent).where(AuditEvent.workspace_id == workspace_id).order_by(AuditEvent.number)
    with closing(db.session.scalars(query.execution_options(yield_per=500))) as entries:
        for entry in entries:
            if entry.number != expected or entry.hash != _hash(before, entry):
                return expected
            before, expected = entry.hash, expected + 1
    return None


def _last_entry(workspace_id: str) -> AuditEvent | None:
    query = select(AuditEvent).where(AuditEvent.workspace_id == workspace_id).order_by(AuditEvent.number.desc())
    return db.session.scalars(query.limit(1)).first()


def _hash(before: bytes, entry: AuditEvent) -> bytes:
    told = [
        entry.workspace_id,
        entry.number,
        entry.at.isoformat(),
        entry.actor_kind,
        entry.actor_id,
        entry.actor_name,
        entry.action,
        entry.object_id,
        entry.object_name,
        entry.details,
        entry.address,
        entry.client,
    ]
    text = json.dumps(told, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(before + text.encode()).digest()
