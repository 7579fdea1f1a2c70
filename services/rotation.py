"""Rotation: the key stays, its secret changes, and the previous one lives on for a chosen overlap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from extensions import db
from models import ApiKey, ApiKeySecret, UsageRecord, Workspace
from models.base import now, transaction
from services import audit, idempotency, keys
from services.actor import Actor
from services.errors import InvalidInput, InvalidRequest
from services.json_input import read_moment
from services.parts import parts

DUE_AFTER = timedelta(days=90)
OVERLAPS = {"now": timedelta(0), "1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
_MOST_USERS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class SecretUse:
    """Who still uses a secret: one address and client, how often and when last."""

    address: str | None
    client: str | None
    count: int
    last_at: datetime


def rotate(
    workspace: Workspace,
    key_id: str,
    *,
    actor: Actor,
    until: datetime | None,
    within: keys.Ceiling | None = None,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> keys.Minted:
    """Give the key a new secret. The current one works until that moment, or ends at once with None.

    A secret that was already on its way out ends at once: at most two are alive. Never past the key's expiry.
    ``within`` is what the key that asks may do: it cannot get hold of a secret that can do more than itself.
    Raises NotFound, PlanRequired, PermissionRefused, InvalidInput for the field ``overlap``, AlreadyDone for a repeated
    number.
    """
    with transaction() as session:
        key = keys.locked(workspace, key_id)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        parts().plans.require_api_access(workspace)
        if within is not None:
            within.check_key(key)
        _check_overlap(key, until)
        secret = parts().key_format.generate(key.kind, key.environment)
        current, *older = key.secrets
        current.ends_at = until
        for ended in older if until is not None else [current, *older]:
            key.secrets.remove(ended)
        keys.add_secret(key, secret)
        idempotency.remember(workspace, one_time_number, key.id, request_digest)
        session.flush()
        session.expire(key, ["secrets"])
        details = {"previous_until": until.isoformat() if until else None}
        audit.record(workspace.id, actor, "key:rotate", object_id=key.id, object_name=key.name, details=details)
    return keys.Minted(key, secret)


def finish(
    workspace: Workspace,
    key_id: str,
    *,
    actor: Actor,
    within: keys.Ceiling | None = None,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> ApiKey:
    """End the overlap now: the previous secret is refused from the next request on.

    Raises NotFound, PermissionRefused, InvalidRequest, AlreadyDone for a repeated number.
    """
    with transaction() as session:
        key = keys.locked(workspace, key_id)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        if within is not None:
            within.check_environment(key)
        _require_previous(key)
        del key.secrets[1:]
        idempotency.remember(workspace, one_time_number, key.id, request_digest)
        session.flush()
        audit.record(workspace.id, actor, "key:finish_rotation", object_id=key.id, object_name=key.name)
    return key


def extend(workspace: Workspace, key_id: str, until: datetime, *, actor: Actor) -> ApiKey:
    """Let the previous secret live until another moment. Raises NotFound, InvalidRequest, InvalidInput."""
    with transaction() as session:
        key = keys.locked(workspace, key_id)
        previous = _require_previous(key)
        _check_overlap(key, until)
        previous.ends_at = until
        session.flush()
        details = {"previous_until": until.isoformat()}
        audit.record(
            workspace.id, actor, "key:extend_rotation", object_id=key.id, object_name=key.name, details=details
        )
    return key


def previous_secret(key: ApiKey) -> ApiKeySecret | None:
    """Return the secret that is on its way out, if one still works."""
    living = [secret for secret in key.secrets[1:] if secret.ends_at is not None and secret.ends_at > now()]
    return living[0] if living else None


def is_due(key: ApiKey) -> bool:
    """Tell whether the key's secret is so old that it should be changed."""
    return bool(key.secrets) and now() - key.secrets[0].created_at >= DUE_AFTER


def users_of(key: ApiKey, secret: ApiKeySecret) -> list[SecretUse]:
    """Return who used the secret since the key has a newer one, the latest first."""
    query = (
        select(UsageRecord.address, UsageRecord.client, func.count(), func.max(UsageRecord.started_at))
        .where(
            UsageRecord.api_key_id == key.id,
            UsageRecord.secret_id == secret.id,
            UsageRecord.started_at >= key.secrets[0].created_at,
        )
        .group_by(UsageRecord.address, UsageRecord.client)
        .order_by(func.max(UsageRecord.started_at).desc())
    )
    return [SecretUse(*row) for row in db.session.execute(query.limit(_MOST_USERS_SHOWN))]


def moment_after(overlap: str) -> datetime | None:
    """Return until when ``now``, ``1h``, ``24h``, ``7d`` or an ISO 8601 moment lets the old secret live; None: at once.

    Raises InvalidInput for the field ``overlap``.
    """
    if overlap in OVERLAPS:
        return now() + OVERLAPS[overlap] if OVERLAPS[overlap] else None
    moment = read_moment(overlap)
    if moment is None:
        choices = ", ".join(OVERLAPS)
        raise InvalidInput({"overlap": f"Give one of {choices}, or a moment with its zone like 2027-02-18T14:00:00Z"})
    return moment


def _require_previous(key: ApiKey) -> ApiKeySecret:
    previous = previous_secret(key)
    if previous is None:
        raise InvalidRequest("This key has no previous secret that still works.", code="not_rotating")
    return previous


def _check_overlap(key: ApiKey, until: datetime | None) -> None:
    if key.expires_at is not None and key.expires_at <= now():
        raise InvalidInput({"overlap": "The key has expired. Set its expiry first"})
    if until is None:
        return
    if until <= now():
        raise InvalidInput({"overlap": "Choose a moment in the future"})
    if key.expires_at is not None and until > key.expires_at:
        raise InvalidInput({"overlap": "Choose a moment that is not after the key’s own expiry"})
