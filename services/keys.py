"""API keys: made, listed and ended. What a key may do when it is used is in ``gate.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from extensions import db
from models import ApiKey, ApiKeySecret, IdempotencyRecord, UsageRecord, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit
from services.actor import Actor
from services.errors import AlreadyDone, InvalidInput, NotFound
from services.parts import parts
from services.permissions import PRESETS, PUBLISHABLE_SCOPES, Scope
from services.secret import Secret

NAME_LENGTH = 60
_SCOPES = frozenset(scope.value for scope in Scope)
DEFAULT_PRESETS = {"secret": "full", "publishable": "read_only"}


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key and its secret, which nothing can show again."""

    key: ApiKey
    secret: Secret


@dataclass(frozen=True, slots=True)
class LastUse:
    """The newest call that named a key."""

    at: datetime
    address: str | None
    client: str | None


def mint(
    workspace: Workspace,
    *,
    actor: Actor,
    name: str,
    kind: str,
    environment: str,
    scopes: Sequence[str] | None = None,
    preset: str | None = None,
    expires_at: datetime | None = None,
    one_time_number: str | None = None,
) -> Minted:
    """Make a key. With neither scopes nor preset it gets the usual preset of its kind.

    ``one_time_number`` names the request: a second one with the same number raises AlreadyDone with the key's id.
    Raises PlanRequired without API access, InvalidInput for values that cannot be taken.
    """
    with transaction() as session:
        one_at_a_time(f"key:create:{workspace.id}")
        _refuse_repetition(workspace, one_time_number)
        parts().plans.require_api_access(workspace)
        name = name.strip()
        granted, preset = _granted(kind, scopes, preset)
        _check(workspace, name, kind, environment, granted, expires_at)
        secret = parts().key_format.generate(kind, environment)
        key = ApiKey(
            id=new_id("key"),
            workspace_id=workspace.id,
            name=name,
            prefix=parts().key_format.prefix,
            kind=kind,
            environment=environment,
            scopes=granted,
            preset=preset,
            expires_at=expires_at,
            created_at=now(),
            created_by_id=actor.user_id,
            created_by_name=actor.name,
        )
        key.secrets.append(_secret_row(secret))
        session.add(key)
        if one_time_number is not None:
            session.add(
                IdempotencyRecord(
                    workspace_id=workspace.id, number=one_time_number, object_id=key.id, created_at=key.created_at
                )
            )
        session.flush()
        details = {"kind": kind, "environment": environment, "scopes": granted}
        audit.record(workspace.id, actor, "key:create", object_id=key.id, object_name=name, details=details)
    return Minted(key, secret)


def delete(workspace: Workspace, key_id: str, *, actor: Actor) -> ApiKey:
    """End a key at once and for ever: its digests are erased, the record stays for the log. Raises NotFound."""
    with transaction() as session:
        key = get(workspace, key_id)
        session.refresh(key, with_for_update={"key_share": True})
        if key.deleted_at is not None:
            raise NotFound
        key.deleted_at = now()
        key.secrets.clear()
        session.flush()
        audit.record(workspace.id, actor, "key:delete", object_id=key.id, object_name=key.name)
    return key


def living(workspace: Workspace) -> list[ApiKey]:
    """Every key that is not deleted, the most recently used first, then the newest."""
    used = last_uses(workspace)
    query = select(ApiKey).where(ApiKey.workspace_id == workspace.id, ApiKey.deleted_at.is_(None))
    keys = list(db.session.scalars(query.order_by(ApiKey.created_at.desc())))
    never = datetime.min.replace(tzinfo=now().tzinfo)
    return sorted(keys, key=lambda key: used[key.id].at if key.id in used else never, reverse=True)


def get(workspace: Workspace, key_id: str) -> ApiKey:
    """Return a living key of this workspace. Raises NotFound for every other id."""
    key = get_any(workspace, key_id)
    if key.deleted_at is not None:
        raise NotFound
    return key


def get_any(workspace: Workspace, key_id: str) -> ApiKey:
    """Return a key of this workspace, deleted or not. Raises NotFound for every other id."""
    query = select(ApiKey).where(ApiKey.workspace_id == workspace.id, ApiKey.id == key_id)
    key = db.session.scalars(query).first()
    if key is None:
        raise NotFound
    return key


def get_anywhere(key_id: str) -> tuple[Workspace, ApiKey]:
    """Return a living key of any workspace, for the operator's commands only. Raises NotFound."""
    query = select(Workspace, ApiKey).join(ApiKey, ApiKey.workspace_id == Workspace.id)
    found = db.session.execute(query.where(ApiKey.id == key_id, ApiKey.deleted_at.is_(None))).first()
    if found is None:
        raise NotFound(f"There is no key {key_id!r}.")
    return found[0], found[1]


def last_uses(workspace: Workspace) -> dict[str, LastUse]:
    """Return the newest call of each key by key id; a key that was never used is not in it."""
    # One look at the end of an index for each key, however many calls there were.
    newest = select(func.max(UsageRecord.id)).where(UsageRecord.api_key_id == ApiKey.id).scalar_subquery()
    query = select(UsageRecord).where(
        UsageRecord.id.in_(select(newest).select_from(ApiKey).where(ApiKey.workspace_id == workspace.id))
    )
    return {row.api_key_id: LastUse(row.started_at, row.address, row.client) for row in db.session.scalars(query)}


def requests_in_days(workspace: Workspace, days: int = 7) -> dict[str, list[int]]:
    """Return the number of calls of each key on each of the last ``days`` UTC days, the oldest first."""
    first = now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    day = func.date(UsageRecord.started_at)
    query = (
        select(UsageRecord.api_key_id, day, func.count())
        .where(UsageRecord.workspace_id == workspace.id, UsageRecord.started_at >= first)
        .group_by(UsageRecord.api_key_id, day)
    )
    place = {str((first + timedelta(days=number)).date()): number for number in range(days)}
    counts: dict[str, list[int]] = {}
    for key_id, on, count in db.session.execute(query):
        if str(on) in place:
            counts.setdefault(key_id, [0] * days)[place[str(on)]] = count
    return counts


def _refuse_repetition(workspace: Workspace, number: str | None) -> None:
    if number is None:
        return
    query = select(IdempotencyRecord.object_id).where(
        IdempotencyRecord.workspace_id == workspace.id, IdempotencyRecord.number == number
    )
    made = db.session.scalars(query).first()
    if made is not None:
        raise AlreadyDone(made)


def _granted(kind: str, scopes: Sequence[str] | None, preset: str | None) -> tuple[list[str], str | None]:
    """Return the scopes in alphabetical order, and the preset they came from if they came from one."""
    if scopes is not None:
        return sorted(set(scopes)), None
    preset = preset or DEFAULT_PRESETS.get(kind, "full")
    if preset not in PRESETS:
        raise InvalidInput({"preset": f"There is no preset “{preset}”"})
    return sorted(PRESETS[preset].scopes), preset


def _check(
    workspace: Workspace, name: str, kind: str, environment: str, scopes: list[str], expires_at: datetime | None
) -> None:
    faults = {
        "name": _name_fault(workspace, name),
        "kind": None if kind in ("secret", "publishable") else "Choose secret or publishable",
        "environment": None if environment in ("live", "test") else "Choose live or test",
        "scopes": _scopes_fault(kind, scopes),
        "expires_at": "Choose a moment in the future" if expires_at is not None and expires_at <= now() else None,
    }
    found = {field: fault for field, fault in faults.items() if fault is not None}
    if found:
        raise InvalidInput(found)


def _name_fault(workspace: Workspace, name: str) -> str | None:
    if not name:
        return "Enter a name for the key"
    if len(name) > NAME_LENGTH:
        return f"Use at most {NAME_LENGTH} characters"
    if not name.isprintable():
        return "Use printable characters on one line"
    query = select(ApiKey.id).where(
        ApiKey.workspace_id == workspace.id, ApiKey.name == name, ApiKey.deleted_at.is_(None)
    )
    if db.session.scalars(query).first() is not None:
        return "Another key has this name. Choose a different one"
    return None


def _scopes_fault(kind: str, scopes: list[str]) -> str | None:
    if not scopes:
        return "Choose at least one scope"
    for scope in scopes:
        if scope not in _SCOPES:
            return f"There is no scope “{scope}”"
        if kind == "publishable" and scope not in PUBLISHABLE_SCOPES:
            return f"A publishable key cannot have {scope}. It is read-only and has no billing"
    return None


def _secret_row(secret: Secret) -> ApiKeySecret:
    parsed = parts().key_format.parse(secret.reveal())
    assert parsed is not None
    return ApiKeySecret(
        id=new_id("sec"),
        digest=parts().key_digests.digest(secret.reveal()),
        first_characters=parsed.first_characters,
        last_characters=parsed.last_characters,
        created_at=now(),
        ends_at=None,
    )
