"""Notices about the time of keys: they expire in 30, 7 or 1 days, have expired, or are due for rotation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, select

from extensions import db
from models import ApiKey, ApiKeySecret, User, Workspace
from models.base import now, transaction
from services import events, notices
from services.rotation import DUE_AFTER

EXPIRING, EXPIRED, DUE = "key_expiring", "key_expired", "key_rotation_due"
DAYS = (30, 7, 1)
# A key that expired while nobody looked is still told of for so long.
_EXPIRED_LATELY = timedelta(days=2)
# A moment that was given as "in 7 days" is a little less than 7 days after the key was made.
_SLACK = timedelta(minutes=5)
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class _News:
    """What is to be told of a key once for this occasion."""

    key: ApiKey
    subject_id: str
    occasion: str


def tell_of_expiry() -> None:
    """Tell once of each key that expires in 30, 7 or 1 days."""
    at = now()
    query = _living().where(ApiKey.expires_at > at, ApiKey.expires_at <= at + timedelta(days=DAYS[0]))
    for workspace_id, found in _by_workspace(query):
        _tell(workspace_id, EXPIRING, [news for key in found if (news := _expiring(key, at))], _mail_of_expiry)


def tell_of_expired() -> None:
    """Add an event for each key that has expired lately. People were told before."""
    at = now()
    query = _living().where(ApiKey.expires_at <= at, ApiKey.expires_at > at - _EXPIRED_LATELY)
    for workspace_id, found in _by_workspace(query):
        _tell(workspace_id, EXPIRED, [_News(key, key.id, _moment(key)) for key in found], None)


def tell_of_rotation() -> None:
    """Tell once of each secret that is so old that it should be changed."""
    at = now()
    old = select(ApiKeySecret.api_key_id).where(
        ApiKeySecret.ends_at.is_(None), ApiKeySecret.created_at <= at - DUE_AFTER
    )
    for workspace_id, found in _by_workspace(_living().where(ApiKey.id.in_(old))):
        working = [key for key in found if key.status(at) == "active"]
        _tell(workspace_id, DUE, [_News(key, key.secrets[0].id, "due") for key in working], _mail_of_rotation)


def _expiring(key: ApiKey, at: datetime) -> _News | None:
    assert key.expires_at is not None
    left = key.expires_at - at
    days = min(days for days in DAYS if left <= timedelta(days=days))
    if key.expires_at - key.created_at <= timedelta(days=days) + _SLACK:
        # It was meant to live no longer than that from the start.
        return None
    return _News(key, key.id, f"{_moment(key)}/{days}")


def _tell(
    workspace_id: str,
    kind: str,
    found: list[_News],
    write: Callable[[Workspace, User, list[ApiKey]], None] | None,
) -> None:
    """Tell what was not told yet: an event for each key, and one mail to each person."""
    known = notices.told(workspace_id, kind, [news.subject_id for news in found])
    new = [news for news in found if (news.subject_id, news.occasion) not in known][:_AT_ONCE]
    if not new:
        return
    with transaction() as session:
        workspace = session.get(Workspace, workspace_id)
        if workspace is None:
            return
        keys_of: dict[str, tuple[User, list[ApiKey]]] = {}
        # In one order, so that two processes that do this at once do not wait for each other in a circle.
        for news in sorted(new, key=lambda one: one.subject_id):
            if not notices.first_time(workspace_id, kind, news.subject_id, news.occasion):
                continue
            events.add(workspace_id, kind.replace("_", ".", 1), {"key": _told(news.key)})
            for person in notices.people_of(workspace, news.key) if write else ():
                keys_of.setdefault(person.id, (person, []))[1].append(news.key)
        if write is not None:
            for person, keys in keys_of.values():
                write(workspace, person, keys)


def _told(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "masked": key.mask,
        "expires_at": _moment(key) if key.expires_at else None,
        "secret_created_at": _iso(key.secrets[0].created_at) if key.secrets else None,
    }


def _mail_of_expiry(workspace: Workspace, person: User, keys: list[ApiKey]) -> None:
    keys = sorted(keys, key=lambda key: (key.expires_at or now(), key.name))
    first = keys[0]
    assert first.expires_at is not None
    subject = (
        f"Your API key “{first.name}” expires on {first.expires_at:%d %b %Y}"
        if len(keys) == 1
        else f"{len(keys)} of your API keys expire soon"
    )
    notices.send(workspace, [person], subject, EXPIRING, keys=[_words(key) for key in keys])


def _mail_of_rotation(workspace: Workspace, person: User, keys: list[ApiKey]) -> None:
    keys = sorted(keys, key=lambda key: key.name)
    subject = (
        f"The secret of “{keys[0].name}” is due for rotation"
        if len(keys) == 1
        else f"The secrets of {len(keys)} API keys are due for rotation"
    )
    notices.send(workspace, [person], subject, DUE, keys=[_words(key) for key in keys], days=DUE_AFTER.days)


def _words(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "mask": key.mask,
        "expires_at": key.expires_at,
        "age_days": (now() - key.secrets[0].created_at).days,
    }


def _living() -> Select[Any]:
    return select(ApiKey).where(ApiKey.deleted_at.is_(None), ApiKey.disabled_at.is_(None))


def _by_workspace(query: Select[Any]) -> Iterator[tuple[str, list[ApiKey]]]:
    """Yield the keys of each workspace. They are read before anything is written."""
    workspaces: dict[str, list[str]] = defaultdict(list)
    for workspace_id, key_id in db.session.execute(query.with_only_columns(ApiKey.workspace_id, ApiKey.id)):
        workspaces[workspace_id].append(key_id)
    for workspace_id, ids in workspaces.items():
        for some in _pieces(ids):
            yield workspace_id, list(db.session.scalars(select(ApiKey).where(ApiKey.id.in_(some))))


def _pieces(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def _moment(key: ApiKey) -> str:
    assert key.expires_at is not None
    return _iso(key.expires_at)


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
