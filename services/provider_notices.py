"""Notices about provider keys: a provider refuses one, or accepts it again."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, or_, select

from extensions import db
from models import Notice, ProviderKey, Workspace
from models.base import now, one_at_a_time, transaction
from services import events, notices, provider_keys
from services.members import managers_of
from services.provider_keys import CANNOT_DECRYPT, INVALID, NO_CREDIT, RESTRICTED, VALID

KIND = "provider_key_state"
_BAD = (INVALID, NO_CREDIT, CANNOT_DECRYPT)
_GOOD = (VALID, RESTRICTED)
_PAUSE = timedelta(hours=1)


def look() -> None:
    """Tell of each provider key that is bad and was not, or is good again after that was told."""
    of_key = and_(
        Notice.workspace_id == ProviderKey.workspace_id, Notice.kind == KIND, Notice.subject_id == ProviderKey.id
    )
    was_told = select(Notice.id).where(of_key).exists()
    query = select(ProviderKey.id).where(or_(ProviderKey.state.in_(_BAD), and_(ProviderKey.state.in_(_GOOD), was_told)))
    for row_id in db.session.scalars(query).all():
        row = db.session.get(ProviderKey, row_id)
        if row is not None and _is_news(row):
            _tell(row_id)


def _is_news(row: ProviderKey) -> bool:
    """Tell whether what was told last is no longer so. What was told of a key before this one took its place counts as
    nothing told, as long as that was bad news."""
    last = db.session.scalars(
        select(Notice)
        .where(Notice.workspace_id == row.workspace_id, Notice.kind == KIND, Notice.subject_id == row.id)
        .order_by(Notice.id.desc())
        .limit(1)
    ).first()
    told = last.occasion.partition("/")[0] if last else VALID
    if row.state in _GOOD:
        return told in _BAD
    return told != row.state or (last is not None and last.created_at < row.updated_at)


def _told_lately(row: ProviderKey, state: str) -> bool:
    """Tell whether this was told of the key within the last hour, so that one that goes to and fro is no flood."""
    query = select(Notice.id).where(
        Notice.workspace_id == row.workspace_id,
        Notice.kind == KIND,
        Notice.subject_id == row.id,
        Notice.occasion.startswith(f"{state}/", autoescape=True),
        Notice.created_at > now() - _PAUSE,
    )
    return db.session.scalar(query.limit(1)) is not None


def _tell(row_id: str) -> None:
    with transaction() as session:
        one_at_a_time(f"notice:{KIND}:{row_id}")
        row = session.get(ProviderKey, row_id)
        workspace = session.get(Workspace, row.workspace_id) if row else None
        if row is None or workspace is None or not _is_news(row):
            return
        state = row.state if row.state in _BAD else VALID
        if _told_lately(row, state):
            return
        notices.first_time(workspace.id, KIND, row.id, f"{state}/{now():%Y-%m-%dT%H:%M:%S.%f}")
        title = provider_keys.title_of(row)
        data = {"provider_key": {"id": row.id, "name": title, "provider": row.provider, "state": row.state}}
        events.add(workspace.id, "provider_key.state_changed", data)
        subject = {
            INVALID: f"{title} refuses your key",
            NO_CREDIT: f"Your {title} account has no credit",
            CANNOT_DECRYPT: f"Your {title} key cannot be decrypted",
            VALID: f"{title} accepts your key again",
        }[state]
        notices.send(
            workspace,
            managers_of(workspace),
            subject,
            KIND,
            title=title,
            provider=row.provider,
            state=state,
            seen_at=row.state_seen_at or now(),
            words=(row.state_words or "").strip().rstrip("."),
        )
