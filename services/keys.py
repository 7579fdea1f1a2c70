"""API keys: made, listed and ended. What a key may do when it is used is in ``gate.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum

from sqlalchemy import ColumnElement, and_, func, literal, or_, select

from extensions import db
from models import ApiKey, ApiKeySecret, KeyFingerprint, UsageRecord, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit, custom_scopes, idempotency, spending, time_zones, workspaces
from services.actor import Actor
from services.errors import InvalidInput, NotFound, PermissionRefused
from services.parts import parts
from services.permissions import PRESETS, Role, may_grant
from services.restrictions import Restrictions, as_dict, widened
from services.secret import Secret

NAME_LENGTH = 60
NONE = Restrictions()
_LIVE = "A test key cannot manage live keys."
# An attempt with an ended secret is no use of the key.
_ATTEMPT = "invalid_api_key"
_NO_ATTEMPT = or_(UsageRecord.code.is_(None), UsageRecord.code != _ATTEMPT)


class Unchanged(Enum):
    """Stands for a value that was not given, where None means something."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
DEFAULT_PRESETS = {"secret": "full", "publishable": "read_only"}


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key and its secret, which nothing can show again."""

    key: ApiKey
    secret: Secret


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a key may pass on: a key never makes one that can do more than itself, or from elsewhere, or outlives it."""

    scopes: frozenset[str]
    expires_at: datetime | None
    environment: str
    restrictions: Restrictions = NONE

    def check(
        self, scopes: Sequence[str], expires_at: datetime | None, environment: str, restrictions: Restrictions
    ) -> None:
        """Raise InvalidInput when a key like that would go beyond this one."""
        faults = dict(widened(restrictions, self.restrictions))
        beyond = sorted(set(scopes) - self.scopes)
        if beyond:
            faults["scopes"] = f"This key does not have {beyond[0]} itself"
        if self.expires_at is not None and (expires_at is None or expires_at > self.expires_at):
            faults["expires_at"] = "A key cannot outlive the one that manages it"
        if self.environment == "test" and environment == "live":
            faults["environment"] = _LIVE
        if faults:
            raise InvalidInput(faults)

    def check_environment(self, key: ApiKey) -> None:
        """Raise PermissionRefused when the key is no business of a test key's."""
        if self.environment == "test" and key.environment == "live":
            raise PermissionRefused(_LIVE)

    def check_key(self, key: ApiKey) -> None:
        """Raise PermissionRefused or InvalidInput when the key, as it is now, goes beyond this one."""
        self.check_environment(key)
        self.check(key.scopes, key.expires_at, key.environment, restrictions_of(key))


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
    restrictions: Restrictions = NONE,
    role: Role | None = None,
    within: Ceiling | None = None,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> Minted:
    """Make a key. With neither scopes nor preset it gets the usual preset of its kind.

    ``role`` is that of the person who asks, ``within`` what the key that asks may pass on. ``one_time_number`` names
    the request: a second one with the same number raises AlreadyDone with the key's id. Raises PlanRequired without API
    access, InvalidInput for values that cannot be taken.
    """
    with transaction() as session:
        one_at_a_time(f"key:create:{workspace.id}")
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        parts().plans.require_api_access(workspace)
        name = name.strip()
        granted, preset = _granted(kind, scopes, preset)
        _check(workspace, name, kind, environment, granted, expires_at)
        if role is not None:
            _check_member(workspace, actor)
            _check_role(role, granted)
        if within is not None:
            within.check(granted, expires_at, environment, restrictions)
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
        _restrict(key, restrictions)
        session.add(key)
        add_secret(key, secret)
        idempotency.remember(workspace, one_time_number, key.id, request_digest)
        session.flush()
        details = {"kind": kind, "environment": environment, "scopes": granted, **as_dict(restrictions)}
        audit.record(workspace.id, actor, "key:create", object_id=key.id, object_name=name, details=details)
    return Minted(key, secret)


def change(
    workspace: Workspace,
    key_id: str,
    *,
    actor: Actor,
    name: str | None = None,
    expires_at: datetime | Unchanged | None = UNCHANGED,
    restrictions: Restrictions | Callable[[ApiKey], Restrictions] | None = None,
    within: Ceiling | None = None,
) -> ApiKey:
    """Change what may be changed: name, expiry (None: never) and restrictions. What is not given stays.

    A function as ``restrictions`` makes the new ones from the key as it is while nobody else can change it. With
    ``within``, expiry and restrictions change only for a key that then lies within it. Raises NotFound,
    PermissionRefused and InvalidInput.
    """
    with transaction() as session:
        one_at_a_time(f"key:create:{workspace.id}")
        key = locked(workspace, key_id)
        if within is not None:
            within.check_environment(key)
        changed: dict[str, object] = {}
        if name is not None and name.strip() != key.name:
            fault = _name_fault(workspace, name.strip())
            if fault is not None:
                raise InvalidInput({"name": fault})
            key.name = name.strip()
            changed["name"] = key.name
        if not isinstance(expires_at, Unchanged):
            _change_expiry(key, expires_at)
            changed["expires_at"] = expires_at.isoformat() if expires_at else None
        if restrictions is not None:
            changed |= _restrict_anew(key, restrictions(key) if callable(restrictions) else restrictions)
        if within is not None and changed.keys() - {"name"}:
            within.check_key(key)
        session.flush()
        audit.record(workspace.id, actor, "key:change", object_id=key.id, object_name=key.name, details=changed)
    return key


def _restrict_anew(key: ApiKey, restrictions: Restrictions) -> Mapping[str, object]:
    """Restrict a key that is in use; return what the log tells of it."""
    if _spending(restrictions) != _spending(restrictions_of(key)):
        spending.count_anew(key.workspace_id, key.id)
    _restrict(key, restrictions)
    return as_dict(restrictions)


def disable(
    workspace: Workspace,
    key_id: str,
    *,
    actor: Actor,
    within: Ceiling | None = None,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> ApiKey:
    """Refuse the key from the next request on, until it is enabled. Disabling it again changes nothing.

    Raises NotFound, PermissionRefused, AlreadyDone for a repeated number.
    """
    with transaction() as session:
        key = locked(workspace, key_id)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        if within is not None:
            within.check_environment(key)
        if key.disabled_at is None:
            key.disabled_at = now()
            audit.record(workspace.id, actor, "key:disable", object_id=key.id, object_name=key.name)
        idempotency.remember(workspace, one_time_number, key.id, request_digest)
        session.flush()
    return key


def enable(
    workspace: Workspace,
    key_id: str,
    *,
    actor: Actor,
    within: Ceiling | None = None,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> ApiKey:
    """Let a disabled key in again.

    With ``within``, only one that can do no more: it may have been disabled because others hold it. Raises NotFound,
    PermissionRefused, InvalidInput, AlreadyDone for a repeated number.
    """
    with transaction() as session:
        key = locked(workspace, key_id)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        if within is not None:
            within.check_key(key)
        if key.disabled_at is not None:
            key.disabled_at = None
            audit.record(workspace.id, actor, "key:enable", object_id=key.id, object_name=key.name)
        idempotency.remember(workspace, one_time_number, key.id, request_digest)
        session.flush()
    return key


def delete(workspace: Workspace, key_id: str, *, actor: Actor, within: Ceiling | None = None) -> ApiKey:
    """End a key at once and for ever: its digests are erased, the record stays for the log.

    Raises NotFound, PermissionRefused.
    """
    with transaction() as session:
        key = locked(workspace, key_id)
        if within is not None:
            within.check_environment(key)
        erase(key)
        session.flush()
        audit.record(workspace.id, actor, "key:delete", object_id=key.id, object_name=key.name)
    return key


def erase(key: ApiKey) -> None:
    """Take a key's secrets away for ever, as part of an act."""
    key.deleted_at = now()
    key.secrets.clear()


def locked(workspace: Workspace, key_id: str) -> ApiKey:
    """Return a living key for an act that changes it; another act on it waits. Raises NotFound."""
    key = get(workspace, key_id)
    db.session.refresh(key, with_for_update={"key_share": True})
    if key.deleted_at is not None:
        raise NotFound
    return key


def add_secret(key: ApiKey, secret: Secret) -> None:
    """Give the key a secret as its newest: the digest that lets it in, and the one that only recognises it."""
    parsed = parts().key_format.parse(secret.reveal())
    assert parsed is not None
    row = ApiKeySecret(
        id=new_id("sec"),
        digest=parts().key_digests.digest(secret.reveal()),
        first_characters=parsed.first_characters,
        last_characters=parsed.last_characters,
        created_at=now(),
        ends_at=None,
    )
    key.secrets.insert(0, row)
    db.session.add(
        KeyFingerprint(digest=parts().fingerprint_digests.digest(secret.reveal()), api_key_id=key.id, secret_id=row.id)
    )


def living(workspace: Workspace) -> list[ApiKey]:
    """Every key that is not deleted, the most recently used first, then the newest."""
    used = last_uses(workspace)
    query = select(ApiKey).where(ApiKey.workspace_id == workspace.id, ApiKey.deleted_at.is_(None))
    keys = list(db.session.scalars(query.order_by(ApiKey.created_at.desc())))
    never = datetime.min.replace(tzinfo=now().tzinfo)
    return sorted(keys, key=lambda key: used[key.id].at if key.id in used else never, reverse=True)


def page(workspace: Workspace, *, limit: int, after: str | None = None) -> tuple[list[ApiKey], bool]:
    """Return keys that are not deleted, the newest first, from after the key with that id, and whether more follow.

    The key may have been deleted since. Raises NotFound when the workspace never had it.
    """
    query = select(ApiKey).where(ApiKey.workspace_id == workspace.id, ApiKey.deleted_at.is_(None))
    if after is not None:
        last = get_any(workspace, after)
        same_moment = and_(ApiKey.created_at == last.created_at, ApiKey.id < last.id)
        query = query.where(or_(ApiKey.created_at < last.created_at, same_moment))
    found = list(db.session.scalars(query.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit + 1)))
    return found[:limit], len(found) > limit


def names_of(workspace: Workspace, key_ids: Sequence[str]) -> dict[str, str]:
    """Return the names of keys of this workspace, deleted or not, by id."""
    query = select(ApiKey.id, ApiKey.name).where(ApiKey.workspace_id == workspace.id, ApiKey.id.in_(key_ids))
    return {row.id: row.name for row in db.session.execute(query)}


def restrictions_of(key: ApiKey) -> Restrictions:
    return Restrictions(
        tuple(key.allowed_models),
        tuple(key.allowed_networks),
        tuple(key.allowed_origins),
        key.requests_per_minute,
        key.daily_limit_nano_usd,
        key.monthly_limit_nano_usd,
        key.allow_unknown_price,
    )


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


def last_uses(workspace: Workspace, key_ids: Sequence[str] | None = None) -> dict[str, LastUse]:
    """Return the newest call of each key, or of those named, by key id; a key that was never used is not in it."""
    # One look at the end of an index for each key, however many calls there were.
    newest = (
        select(UsageRecord.id)
        .where(UsageRecord.api_key_id == ApiKey.id, _NO_ATTEMPT)
        .order_by(UsageRecord.started_at.desc(), UsageRecord.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    wanted = select(newest).select_from(ApiKey).where(ApiKey.workspace_id == workspace.id)
    if key_ids is not None:
        wanted = wanted.where(ApiKey.id.in_(key_ids))
    query = select(UsageRecord).where(UsageRecord.id.in_(wanted))
    rows = db.session.scalars(query)
    return {row.api_key_id: LastUse(row.started_at, row.address, row.client) for row in rows if row.api_key_id}


def requests_in_days(
    workspace: Workspace, days: int = 7, key_ids: Sequence[str] | None = None, zone: tzinfo = UTC
) -> dict[str, list[int]]:
    """Return the number of calls of each key, or of those named, on each of the last ``days`` days of the zone.

    The oldest day comes first.
    """
    today = time_zones.day_of(now(), zone)
    begins = [time_zones.beginning_of(today - timedelta(days=days - 1 - number), zone) for number in range(days)]
    ends = [*begins[1:], None]
    query = select(ApiKey.id, *map(_uses_between, begins, ends)).where(ApiKey.workspace_id == workspace.id)
    if key_ids is not None:
        query = query.where(ApiKey.id.in_(key_ids))
    return {key_id: counts for key_id, *counts in db.session.execute(query) if any(counts)}


def _uses_between(begin: datetime, end: datetime | None) -> ColumnElement[int]:
    """Count the calls of the key of a row in a time. Each count is of entries of an index, and looks at no call."""
    calls = select(func.count()).where(UsageRecord.api_key_id == ApiKey.id, UsageRecord.started_at >= begin)
    if end is not None:
        calls = calls.where(UsageRecord.started_at < end)
    # In the words of the index, which is for no other code.
    attempts = calls.where(UsageRecord.code == literal(_ATTEMPT, literal_execute=True))
    return calls.scalar_subquery() - attempts.scalar_subquery()


def _restrict(key: ApiKey, restrictions: Restrictions) -> None:
    key.allowed_models = list(restrictions.models)
    key.allowed_networks = list(restrictions.networks)
    key.allowed_origins = list(restrictions.origins)
    key.requests_per_minute = restrictions.requests_per_minute
    key.daily_limit_nano_usd = restrictions.daily_limit_nano_usd
    key.monthly_limit_nano_usd = restrictions.monthly_limit_nano_usd
    key.allow_unknown_price = restrictions.allow_unknown_price


def _spending(restrictions: Restrictions) -> tuple[int | None, int | None]:
    return restrictions.daily_limit_nano_usd, restrictions.monthly_limit_nano_usd


def _change_expiry(key: ApiKey, expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= now():
        raise InvalidInput({"expires_at": "Choose a moment in the future"})
    key.expires_at = expires_at
    # A secret on its way out must not outlive its key.
    for secret in key.secrets:
        if secret.ends_at is not None and expires_at is not None and secret.ends_at > expires_at:
            secret.ends_at = expires_at


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
        "scopes": _scopes_fault(workspace, kind, scopes),
        "expires_at": "Choose a moment in the future" if expires_at is not None and expires_at <= now() else None,
    }
    found = {field: fault for field, fault in faults.items() if fault is not None}
    if found:
        raise InvalidInput(found)


def _check_member(workspace: Workspace, actor: Actor) -> None:
    """Refuse a person who was removed after the page had let them in: nobody would inherit the key."""
    if actor.user_id is not None and workspaces.find_membership(actor.user_id, workspace.id) is None:
        raise PermissionRefused


def _check_role(role: Role, scopes: list[str]) -> None:
    beyond = [scope for scope in scopes if not may_grant(role, scope)]
    if beyond:
        raise InvalidInput({"scopes": f"Your role cannot give a key {beyond[0]}. Ask an owner or admin"})


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


def _scopes_fault(workspace: Workspace, kind: str, scopes: list[str]) -> str | None:
    if not scopes:
        return "Choose at least one scope"
    known = custom_scopes.known(workspace)
    for scope in scopes:
        if scope not in known:
            return f"There is no scope “{scope}”"
        if kind == "publishable" and not custom_scopes.publishable(scope):
            return f"A publishable key cannot have {scope}. It is read-only and has no billing"
    return None
