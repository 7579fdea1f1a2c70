"""Notices: what people are told by mail because the portal noticed it, once for each occasion.

That something was told is a row of the mail's own transaction, so neither a second node nor a process that was killed
tells it twice. The looks themselves are background tasks (``key_notices``, ``spending_notices``, ``provider_notices``,
``usage_watch``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import select

from extensions import db
from models import ApiKey, Membership, Notice, User, Workspace
from models.base import delete_some, now, one_at_a_time, transaction
from services import mail, notice_choices
from services.members import managers_of

# Longer than any occasion can come again.
KEPT = timedelta(days=400)


def first_time(workspace_id: str, kind: str, subject_id: str, occasion: str) -> bool:
    """Note that something is being told; tell whether it was not told before. Joins the act's transaction."""
    with transaction() as session:
        one_at_a_time(f"notice:{kind}:{subject_id}")
        if (subject_id, occasion) in told(workspace_id, kind, [subject_id]):
            return False
        session.add(
            Notice(workspace_id=workspace_id, kind=kind, subject_id=subject_id, occasion=occasion, created_at=now())
        )
        session.flush()
    return True


def told(workspace_id: str, kind: str, subject_ids: Iterable[str]) -> set[tuple[str, str]]:
    """Return subject and occasion of what was told of these."""
    query = select(Notice.subject_id, Notice.occasion).where(
        Notice.workspace_id == workspace_id, Notice.kind == kind, Notice.subject_id.in_(list(subject_ids))
    )
    return {(row.subject_id, row.occasion) for row in db.session.execute(query)}


def people_of(workspace: Workspace, key: ApiKey) -> list[User]:
    """Return who is told of a key: who made it, if still a member, else the owners and admins."""
    maker = maker_of(workspace, key)
    return [maker] if maker else managers_of(workspace)


def maker_of(workspace: Workspace, key: ApiKey) -> User | None:
    """Return the person who made a key, if they are a member of its workspace."""
    if key.created_by_id is None:
        return None
    membership = db.session.get(Membership, (workspace.id, key.created_by_id))
    return membership.user if membership else None


def send(workspace: Workspace, people: Iterable[User], subject: str, template: str, **words: object) -> None:
    """Queue a mail to each of these people who wants it. Joins the act's transaction."""
    willing = (person for person in people if notice_choices.wants(person, template))
    for email in dict.fromkeys(person.email for person in willing):
        mail.queue(email, subject, template, workspace.id, workspace_name=workspace.name, **words)


def forget_old() -> bool:
    """Forget what was told long ago, some at a time; tell whether there may be more."""
    return delete_some(Notice, Notice.created_at < now() - KEPT)
