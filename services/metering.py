"""Usage: one durable row for each call that named a key, written before its end can be seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import String, bindparam, func, insert, select, update

from models import ApiKey, KeyFingerprint, UsageRecord
from models.base import now
from models.quick import Act, DatabaseUnavailable, Prepared, PreparedRow
from services import prices, settling, spending
from services.errors import DatabaseAway, PortalError
from services.gate import REASONS, KeyFacts
from services.logs import each_text, hide_keys
from services.parts import parts
from services.server_processes import is_dead, moments, own_id
from services.spending_counters import lock_name

_MODEL_LENGTH = 200
_REASON_LENGTH = 200
_CLIENT_LENGTH = 200
_DETAIL_LENGTH = 500


@dataclass(slots=True)
class Call:
    """A call while it is being worked on. Its numbers are filled in as they become known."""

    request_id: str
    key: KeyFacts
    endpoint: str
    address: str
    client: str | None
    # Who calls without a key, from the playground.
    user_id: str | None = None
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
    # What spending limits hold for it, in nano-dollars; None where none holds. Set by ``spending.hold``.
    hold: int | None = None
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

    def __init__(self) -> None:
        # Kept, because a stream ends when there is no app at work any more.
        self._tools = parts()

    def record(self, call: Call, status: int, code: str | None, details: dict[str, Any] | None = None) -> None:
        """Keep a call that is over, with what it cost, and with what a refusal told besides its code."""
        _charge(call, status)
        values = _row(call, status, code, ended_at=now(), duration_ms=call.duration_ms, details=details)
        if call.hold is None:
            self._run(_INSERT.of(values), values)
            return
        with self._settling(call) as act:
            act.run(_INSERT.of(values), values)
            spending.settle(act, call, call.cost_nano_usd or 0)

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
            "cost_nano_usd": 0,
            "address": attempt.address,
            "client": _text(attempt.client, _CLIENT_LENGTH),
        }
        self._run(_ATTEMPT, values)

    def open(self, call: Call, status: int) -> None:
        """Keep a call whose answer is about to be streamed."""
        try:
            values = _row(call, status, None, ended_at=None, duration_ms=None)
            self._run(_INSERT.of(values), values)
        except DatabaseAway:
            # Nothing is going to be streamed, so nothing settles it.
            if call.hold is not None:
                spending.abandon(call.request_id, call.key.workspace_id)
            raise

    def settle(self, call: Call, code: str | None) -> None:
        """Complete the row of a streamed call, with what it cost; later, when the database is away now."""
        prices.charge(call)
        values = {
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
        settling.settle(self._tools, call, values)

    @contextmanager
    def _settling(self, call: Call) -> Iterator[Act]:
        """Give the act that keeps the row of a call and settles what is held for it."""
        try:
            with self._tools.turns, self._tools.quick.act() as act:
                act.alone(lock_name(call.key.workspace_id))
                yield act
        except BaseException as error:
            # Whatever kept it from being settled, the hold must not outlive the call.
            spending.abandon(call.request_id, call.key.workspace_id)
            if isinstance(error, DatabaseUnavailable):
                raise DatabaseAway from error
            raise

    def _run(self, statement: Prepared, values: dict[str, object]) -> None:
        try:
            with self._tools.turns:
                self._tools.quick.run(statement, values)
        except self._tools.quick.broken_reference as error:
            # The workspace was deleted while the call was at work: its key is as unknown as one that never was.
            unknown = REASONS["invalid_api_key"]
            raise PortalError(
                unknown.message, code="invalid_api_key", status=unknown.status, type=unknown.type
            ) from error
        except DatabaseUnavailable as error:
            raise DatabaseAway from error


def complete_orphans() -> None:
    """Complete the rows of streams whose process has died: code ``portal_stopped``, counts marked as estimates.

    What they hold is released with it. How much of an answer had gone out nobody knows, so its cost stays unknown where
    output has a price. Raises DatabaseAway.
    """
    try:
        for row in parts().quick.all(_ORPHANS, moments()):
            _complete(_Orphan(*row))
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


@dataclass(frozen=True, slots=True)
class _Orphan:
    request_id: str
    workspace_id: str
    api_key_id: str | None
    environment: str
    started_at: datetime
    provider: str | None
    model: str | None
    input_tokens: int | None
    cached_input_tokens: int | None
    output_tokens: int | None


def _complete(orphan: _Orphan) -> None:
    cost, version = prices.cost_of(
        orphan.environment,
        orphan.provider,
        orphan.model,
        orphan.started_at,
        input_tokens=orphan.input_tokens,
        cached_input_tokens=orphan.cached_input_tokens,
        output_tokens=orphan.output_tokens,
    )
    ended_at = now()
    values = {
        "of_request": orphan.request_id,
        "ended_at": ended_at,
        "duration_ms": round((ended_at - orphan.started_at).total_seconds() * 1000),
        "code": "portal_stopped",
        "estimated": True,
        "cost_nano_usd": cost,
        "price_version": version,
    }
    with parts().quick.act() as act:
        act.alone(lock_name(orphan.workspace_id))
        # Nothing is met if it was not dead after all, and has settled since.
        if act.run(_COMPLETE, values):
            place = (orphan.request_id, orphan.workspace_id, orphan.api_key_id, orphan.started_at)
            spending.settle_request(act, *place, cost or 0)


def _charge(call: Call, status: int) -> None:
    """Price a call that is over. One that was refused before anybody counted tokens cost nothing; one that failed may
    have, so its cost stays unknown."""
    if 400 <= status < 500 and call.input_tokens is None and call.output_tokens is None:
        call.cost_nano_usd, call.price_version = 0, None
    else:
        prices.charge(call)


def _row(
    call: Call,
    status: int,
    code: str | None,
    *,
    ended_at: datetime | None,
    duration_ms: int | None,
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "request_id": call.request_id,
        "workspace_id": call.key.workspace_id,
        "api_key_id": call.key.key_id or None,
        "secret_id": call.key.secret_id or None,
        "user_id": call.user_id,
        "environment": call.key.environment,
        "endpoint": call.endpoint,
        "started_at": call.started_at,
        "ended_at": ended_at,
        "duration_ms": duration_ms,
        "status": status,
        "code": code,
        "details": each_text(details, _detail) if details else None,
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


def _detail(text: str) -> str:
    return _text(text, _DETAIL_LENGTH) or ""


def _text(value: str | None, length: int) -> str | None:
    """Return what a text column can hold: PostgreSQL takes no NUL character, and a key sent in the wrong place must not
    stay."""
    return None if value is None else hide_keys(value.replace("\0", ""))[:length]


_columns = UsageRecord.__table__.columns
_INSERT = PreparedRow(UsageRecord)
_ORPHANS = Prepared(
    select(*(_columns[name] for name in _Orphan.__slots__)).where(
        UsageRecord.ended_at.is_(None), is_dead(UsageRecord.process_id, UsageRecord.started_at)
    )
)
_COMPLETED = ("ended_at", "duration_ms", "code", "estimated", "cost_nano_usd", "price_version")
_COMPLETE = Prepared(
    update(UsageRecord)
    .where(UsageRecord.request_id == bindparam("of_request"), UsageRecord.ended_at.is_(None))
    .values({name: bindparam(name) for name in _COMPLETED})
)

# One statement for both: it finds the key of an ended secret and adds the row, or finds none and adds nothing.
_sent = {
    name: bindparam(name, type_=_columns[name].type)
    for name in (
        "request_id",
        "endpoint",
        "started_at",
        "ended_at",
        "status",
        "code",
        "streamed",
        "cost_nano_usd",
        "address",
        "client",
    )
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
