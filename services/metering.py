"""Usage: one durable row for each call that named a key, written before its end can be seen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import String, bindparam, func, insert, select, update

from models import ApiKey, KeyFingerprint, UsageRecord
from models.base import now
from models.quick import DatabaseUnavailable, Prepared, Quick
from services.errors import DatabaseAway
from services.gate import KeyFacts
from services.server_processes import own_id

_MODEL_LENGTH = 200
_REASON_LENGTH = 200
_CLIENT_LENGTH = 200


@dataclass(slots=True)
class Call:
    """A call while it is being worked on. Its numbers are filled in as they become known."""

    request_id: str
    key: KeyFacts
    endpoint: str
    address: str
    client: str | None
    started_at: datetime = field(default_factory=now)
    # What the caller asked for when another model was chosen, and why it was.
    requested_model: str | None = None
    route_reason: str | None = None
    model: str | None = None
    provider: str | None = None
    # The model's name at the provider, which prices go by.
    provider_model: str | None = None
    streamed: bool = False
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    # The counts are ours, not the provider's.
    estimated: bool = False
    # None: unknown. Never a guess, and never 0 for want of a price.
    cost_nano_usd: int | None = None
    price_version: str | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def duration_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A refused call that showed a secret of the right form which lets nobody in."""

    fingerprint: bytes
    # Whose key it may have been: None for anybody's, when its holder called; else only that workspace's.
    workspace_id: str | None
    request_id: str
    endpoint: str
    address: str
    client: str | None


class Meter:
    """Writes usage rows. Raises DatabaseAway when a row cannot be kept: then the call does not count as answered."""

    def __init__(self, quick: Quick) -> None:
        self._quick = quick

    def record(self, call: Call, status: int, code: str | None, details: dict[str, Any] | None = None) -> None:
        """Keep a call that is over, with what a refusal told besides its code."""
        self._insert(call, status, code, ended_at=now(), duration_ms=call.duration_ms, details=details)

    def record_attempt(self, attempt: Attempt) -> None:
        """Keep an attempt with a secret that has ended. Nothing is kept when the secret was never one of ours, and it
        takes as long."""
        values: dict[str, Any] = {
            "fingerprint": attempt.fingerprint,
            "of_workspace": attempt.workspace_id,
            "request_id": attempt.request_id,
            "endpoint": attempt.endpoint,
            "started_at": now(),
            "ended_at": now(),
            "status": 403,
            "code": "invalid_api_key",
            "streamed": False,
            "address": attempt.address,
            "client": _text(attempt.client, _CLIENT_LENGTH),
        }
        self._run(_ATTEMPT, values)

    def open(self, call: Call, status: int) -> None:
        """Keep a call whose answer is about to be streamed."""
        self._insert(call, status, None, ended_at=None, duration_ms=None)

    def settle(self, call: Call, code: str | None) -> None:
        """Complete the row of a streamed call."""
        values = {
            "of_request": call.request_id,
            "ended_at": now(),
            "duration_ms": call.duration_ms,
            "code": code,
            "input_tokens": call.input_tokens,
            "cached_input_tokens": call.cached_input_tokens,
            "output_tokens": call.output_tokens,
            "estimated": call.estimated,
            "cost_nano_usd": call.cost_nano_usd,
            "price_version": call.price_version,
        }
        self._run(_SETTLE, values)

    def _insert(
        self,
        call: Call,
        status: int,
        code: str | None,
        *,
        ended_at: datetime | None,
        duration_ms: int | None,
        details: dict[str, Any] | None = None,
    ) -> None:
        values = {
            "request_id": call.request_id,
            "workspace_id": call.key.workspace_id,
            "api_key_id": call.key.key_id,
            "secret_id": call.key.secret_id,
            "environment": call.key.environment,
            "endpoint": call.endpoint,
            "started_at": call.started_at,
            "ended_at": ended_at,
            "duration_ms": duration_ms,
            "status": status,
            "code": code,
            "details": details or None,
            "streamed": call.streamed,
            "requested_model": _text(call.requested_model, _MODEL_LENGTH),
            "route_reason": _text(call.route_reason, _REASON_LENGTH),
            "model": _text(call.model, _MODEL_LENGTH),
            "provider": call.provider,
            "input_tokens": call.input_tokens,
            "cached_input_tokens": call.cached_input_tokens,
            "output_tokens": call.output_tokens,
            "estimated": call.estimated,
            "cost_nano_usd": call.cost_nano_usd,
            "price_version": call.price_version,
            "process_id": own_id(),
            "address": call.address,
            "client": _text(call.client, _CLIENT_LENGTH),
        }
        self._run(_INSERT, values)

    def _run(self, statement: Prepared, values: dict[str, object]) -> None:
        try:
            self._quick.run(statement, values)
        except DatabaseUnavailable as error:
            raise DatabaseAway from error


def _text(value: str | None, length: int) -> str | None:
    """Return what a text column can hold: PostgreSQL takes no NUL character."""
    return None if value is None else value.replace("\0", "")[:length]


_columns = UsageRecord.__table__.columns
_INSERT = Prepared(
    insert(UsageRecord).values({column.name: bindparam(column.name) for column in _columns if column.name != "id"})
)
_SETTLED = (
    "ended_at",
    "duration_ms",
    "code",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "estimated",
    "cost_nano_usd",
    "price_version",
)
_SETTLE = Prepared(
    update(UsageRecord)
    .where(UsageRecord.request_id == bindparam("of_request"))
    .values({name: bindparam(name) for name in _SETTLED})
)

# One statement for both: it finds the key of an ended secret and adds the row, or finds none and adds nothing.
_sent = {
    name: bindparam(name, type_=_columns[name].type)
    for name in ("request_id", "endpoint", "started_at", "ended_at", "status", "code", "streamed", "address", "client")
}
_found = {
    "workspace_id": ApiKey.workspace_id,
    "api_key_id": KeyFingerprint.api_key_id,
    "secret_id": KeyFingerprint.secret_id,
    "environment": ApiKey.environment,
}
_ATTEMPT = Prepared(
    insert(UsageRecord).from_select(
        [*_sent, *_found],
        select(*_sent.values(), *_found.values())
        .join(ApiKey, ApiKey.id == KeyFingerprint.api_key_id)
        .where(
            KeyFingerprint.digest == bindparam("fingerprint", type_=KeyFingerprint.digest.type),
            ApiKey.workspace_id == func.coalesce(bindparam("of_workspace", type_=String()), ApiKey.workspace_id),
        ),
        # A default of the model would become a value that nobody gives; the database has its own.
        include_defaults=False,
    )
)
