"""What a key did: its last calls, attempts after its end, and why a call was refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select

from extensions import db
from models import ApiKey, UsageRecord, Workspace
from services.errors import NotFound
from services.gate import CHECKS

MOST_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call with a secret that had ended."""

    at: datetime
    address: str | None
    client: str | None
    request_id: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check of the gate for one call: ``passed``, ``failed`` or ``not reached``."""

    name: str
    title: str
    state: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a call. ``failed`` is None when the gate let it in, ``key`` when it came from the playground."""

    call: UsageRecord
    key: ApiKey | None
    checks: list[CheckResult]
    failed: CheckResult | None
    advice: str


_TITLES = {
    "https": "Sent over HTTPS",
    "form": "Has the form of a key, in one header",
    "checksum": "Its checksum is right",
    "known": "Is a key that works",
    "enabled": "Is not disabled",
    "expiry": "Has not expired",
    "plan": "The workspace’s plan has API access",
    "address": "Comes from an allowed network",
    "origin": "Comes from an allowed place: no browser for a secret key, an allowed origin for a publishable one",
    "scope": "Has the scope that is needed",
    "model": "Asks for an allowed model",
    "rate": "Is within the rate",
    "spending": "Is within the spending limits",
}
_CHECK_OF_CODE = {
    "invalid_api_key": "known",
    "disabled_api_key": "enabled",
    "expired_api_key": "expiry",
    "plan_required": "plan",
    "ip_not_allowed": "address",
    "origin_not_allowed": "origin",
    "secret_key_in_browser": "origin",
    "insufficient_scope": "scope",
    "model_not_allowed": "model",
    "rate_limit_exceeded": "rate",
    "spending_limit_reached": "spending",
}
# Nobody has a key there.
_OF_PLAYGROUND = ("rate", "spending")
_ADVICE = {
    "invalid_api_key": "This secret has ended: the key was deleted, or rotated. Give the program the key’s new secret.",
    "disabled_api_key": "Enable the key, or give the program another.",
    "expired_api_key": "Set the key’s expiry anew, or create a replacement.",
    "plan_required": "Ask for a plan with API access. The key works again as soon as the workspace has it.",
    "ip_not_allowed": "Add the address {address} to the key’s networks, if the call is yours.",
    "origin_not_allowed": "Add the origin {origin} to the key’s origins, if the page is yours.",
    "secret_key_in_browser": "Use a publishable key in web pages, and rotate this one: everybody could read it there.",
    "insufficient_scope": "Create a key that has {required}. The scopes of a key cannot be changed.",
    "model_not_allowed": "Add {model} to the key’s models, or ask for one that is allowed.",
    "rate_limit_exceeded": "Spread the calls out, or ask for a higher limit.",
    "spending_limit_reached": "Raise the spending limit, or wait for the next day or month.",
    "model_price_unknown": "Allow models of unknown price under the spending limit, or ask for another model.",
}


def asked_about(request_id: str) -> str:
    """Return the id under which a key that was asked about keeps the question in its own history."""
    return f"{request_id}_v"


def attempts_since_end(key: ApiKey) -> list[Attempt]:
    """Return the calls with a secret of this key since it was deleted, the latest first."""
    if key.deleted_at is None:
        return []
    query = (
        select(UsageRecord)
        .where(
            UsageRecord.api_key_id == key.id,
            UsageRecord.started_at >= key.deleted_at,
            UsageRecord.code == "invalid_api_key",
        )
        .order_by(UsageRecord.started_at.desc(), UsageRecord.id.desc())
    )
    rows = db.session.scalars(query.limit(MOST_ATTEMPTS))
    return [Attempt(row.started_at, row.address, row.client, row.request_id) for row in rows]


def recent_calls(key: ApiKey, limit: int = 50) -> list[UsageRecord]:
    """Return the key's last calls, the latest first."""
    query = select(UsageRecord).where(UsageRecord.api_key_id == key.id)
    latest_first = query.order_by(UsageRecord.started_at.desc(), UsageRecord.id.desc())
    return list(db.session.scalars(latest_first.limit(limit)))


def explain(workspace: Workspace, request_id: str) -> Explanation:
    """Tell why a call of this workspace was refused, or that it was not. Raises NotFound for every other id.

    A service's question about a key has one id and two sides: the call that asked, and the key that was asked about.
    The refused one is explained, or the key's when none was.
    """
    query = (
        select(UsageRecord, ApiKey)
        .outerjoin(ApiKey, ApiKey.id == UsageRecord.api_key_id)
        .where(
            UsageRecord.workspace_id == workspace.id,
            or_(ApiKey.id.is_not(None), UsageRecord.user_id.is_not(None)),
            UsageRecord.request_id.in_([request_id, asked_about(request_id)]),
        )
        .order_by(UsageRecord.code.is_(None), UsageRecord.id)
    )
    found = db.session.execute(query.limit(1)).first()
    if found is None:
        raise NotFound("No call of this workspace has this request id.")
    call, key = found
    name = _CHECK_OF_CODE.get(call.code or "")
    checks = _results(name, [check for check, _ in CHECKS] if key else _OF_PLAYGROUND)
    failed = next((check for check in checks if check.state == "failed"), None)
    return Explanation(call, key, checks, failed, _advice(call.code, call.details or {}))


def _results(failed: str | None, names: Sequence[str]) -> list[CheckResult]:
    place = names.index(failed) if failed in names else len(names)
    states = ["passed"] * place + ["failed"] + ["not reached"] * len(names)
    return [CheckResult(name, _TITLES[name], state) for name, state in zip(names, states, strict=False)]


def _advice(code: str | None, details: dict[str, Any]) -> str:
    if code is None:
        return "This call was let in and answered."
    if code not in _ADVICE:
        return "The gate let this call in; what came after it failed."
    return _ADVICE[code].format(**{"address": "?", "origin": "?", "required": "?", "model": "?", **details})
