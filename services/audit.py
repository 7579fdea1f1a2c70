"""The audit log: entries are added in the transaction of the act they tell of, and chained (``audit_chain``)."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select

from extensions import db
from models import AuditEvent, AuditHead, Workspace
from models.base import now, transaction
from services import audit_chain, events
from services.actor import Actor
from services.audit_chain import KEYED, PLAIN, START

# The act that begins a log.
FIRST = "workspace:create"
_AT_ONCE = 500
MOST_NAMES = 200


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
        head = session.get(AuditHead, workspace_id, populate_existing=True)
        entry = AuditEvent(
            workspace_id=workspace_id,
            number=_next_number(last, head, action),
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
            hash_version=KEYED,
        )
        entry.hash = audit_chain.hash_of(last.hash if last else START, entry)
        session.add(entry)
        if head is None:
            head = AuditHead(workspace_id=workspace_id)
            session.add(head)
        head.number, head.mac = entry.number, audit_chain.head_mac(workspace_id, entry.number, entry.hash)
        session.flush()
        events.note(entry)


def _next_number(last: AuditEvent | None, head: AuditHead | None, action: str) -> int:
    """Return the number that follows; where the end was tampered with one is left out, so that it goes on to show."""
    if head is None and last is None:
        return 1 if action == FIRST else 2
    if last is None or (head is not None and head.number > last.number):
        # What came between is missing.
        assert head is not None
        return max(head.number, 1) + 1
    if last.hash_version == PLAIN:
        # An older version of the portal has written it, beside us or before there were heads.
        return last.number + 1
    expected = audit_chain.head_mac(last.workspace_id, last.number, last.hash)
    holds = head is not None and head.number == last.number and hmac.compare_digest(head.mac, expected)
    return last.number + (1 if holds else 2)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: by whom, what, about what, from a moment on and before one. None or empty: whichever."""

    # The id of a person or key; the kind of an actor without one, such as ``system``.
    actor: str | None = None
    # A whole action such as ``key:create``, or the kind of thing, such as ``key``.
    action: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.actor:
            yield func.coalesce(AuditEvent.actor_id, AuditEvent.actor_kind) == self.actor
        if self.action and ":" in self.action:
            yield AuditEvent.action == self.action
        elif self.action:
            yield AuditEvent.action.startswith(f"{self.action}:", autoescape=True)
        if self.object_id:
            yield AuditEvent.object_id == self.object_id
        if self.since:
            yield AuditEvent.at >= self.since
        if self.until:
            yield AuditEvent.at < self.until


ALL = Wanted()


def latest(workspace: Workspace, *, limit: int, object_id: str | None = None) -> list[AuditEvent]:
    """Return the last entries of the workspace, or those about one object, the latest first."""
    return page(workspace, Wanted(object_id=object_id), limit=limit)[0]


def page(
    workspace: Workspace, wanted: Wanted, *, limit: int, before: int | None = None, after: int | None = None
) -> tuple[list[AuditEvent], bool]:
    """Return entries, the latest first, and whether there are more of them in the direction that was looked in.

    They are those next before the entry with the number ``before``, or next after the one with ``after``.
    """
    query = select(AuditEvent).where(AuditEvent.workspace_id == workspace.id, *wanted.conditions())
    if after is not None:
        query = query.where(AuditEvent.number > after).order_by(AuditEvent.number)
        found = list(db.session.scalars(query.limit(limit + 1)))
        return found[:limit][::-1], len(found) > limit
    if before is not None:
        query = query.where(AuditEvent.number < before)
    found = list(db.session.scalars(query.order_by(AuditEvent.number.desc()).limit(limit + 1)))
    return found[:limit], len(found) > limit


def entries(workspace_id: str, wanted: Wanted) -> Iterator[AuditEvent]:
    """Yield every entry that is wanted, the oldest first.

    However many there are, only some are in memory, and no transaction stays open between them.
    """
    number = 0
    while True:
        query = select(AuditEvent).where(
            AuditEvent.workspace_id == workspace_id, AuditEvent.number > number, *wanted.conditions()
        )
        found = list(db.session.scalars(query.order_by(AuditEvent.number).limit(_AT_ONCE)))
        db.session.expunge_all()
        db.session.rollback()
        yield from found
        if len(found) < _AT_ONCE:
            return
        number = found[-1].number


def actors(workspace: Workspace) -> Sequence[tuple[str, str]]:
    """Return who has done something, as ``Wanted.actor`` and name, in the order of the names; the newest name of each,
    and not more of them than can be chosen from."""
    who = func.coalesce(AuditEvent.actor_id, AuditEvent.actor_kind)
    newest = (
        select(func.max(AuditEvent.number))
        .where(AuditEvent.workspace_id == workspace.id)
        .group_by(who)
        .order_by(func.max(AuditEvent.number).desc())
        .limit(MOST_NAMES)
    )
    query = select(who, AuditEvent.actor_name).where(
        AuditEvent.workspace_id == workspace.id, AuditEvent.number.in_(newest)
    )
    rows = db.session.execute(query.order_by(AuditEvent.actor_name))
    return [(row[0], row[1]) for row in rows]


def actions(workspace: Workspace) -> list[str]:
    """Return every action that the workspace's log tells of."""
    query = select(AuditEvent.action).where(AuditEvent.workspace_id == workspace.id).distinct()
    return sorted(db.session.scalars(query.limit(MOST_NAMES)))


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry of a workspace that is not as it was written, or is missing."""

    workspace: str
    number: int


def first_breaks() -> Iterator[Break]:
    """Check every workspace's chain; yield the first broken entry of each that has one."""
    for workspace_id, slug in db.session.execute(select(Workspace.id, Workspace.slug).order_by(Workspace.slug)).all():
        found = audit_chain.verify(db.session, workspace_id)
        if found.broken is not None:
            yield Break(slug, found.broken)


def seal(*, anew: bool = False) -> list[str]:
    """Bind all chains by MAC (``audit_chain.seal``). Returns the slugs of the workspaces whose chain is broken."""
    with transaction() as session:
        session.execute(select(Workspace.id).with_for_update(key_share=True))
        broken = audit_chain.seal(session.connection(), anew=anew)
        return sorted(session.scalars(select(Workspace.slug).where(Workspace.id.in_(broken))))


def _last_entry(workspace_id: str) -> AuditEvent | None:
    query = select(AuditEvent).where(AuditEvent.workspace_id == workspace_id).order_by(AuditEvent.number.desc())
    return db.session.scalars(query.limit(1)).first()
