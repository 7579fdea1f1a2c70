"""Usage: one durable row for each call that named a key, written before its end can be seen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import bindparam, insert, update

from models import UsageRecord
from models.base import now
from models.quick import DatabaseUnavailable, Prepared, Quick
from services.errors import DatabaseAway
from services.gate import KeyFacts

_MODEL_LENGTH = 200
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
    model: str | None = None
    provider: str | None = None
    streamed: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def duration_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)


class Meter:
    """Writes usage rows. Raises DatabaseAway when a row cannot be kept: then the call does not count as answered."""

    def __init__(self, quick: Quick) -> None:
        self._quick = quick

    def record(self, call: Call, status: int, code: str | None) -> None:
        """Keep a call that is over."""
        self._insert(call, status, code, ended_at=now(), duration_ms=call.duration_ms)

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
            "output_tokens": call.output_tokens,
        }
        self._run(_SETTLE, values)

    def _insert(
        self, call: Call, status: int, code: str | None, *, ended_at: datetime | None, duration_ms: int | None
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
            "streamed": call.streamed,
            "model": _text(call.model, _MODEL_LENGTH),
            "provider": call.provider,
            "input_tokens": call.input_tokens,
            "output_tokens": call.output_tokens,
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
_SETTLE = Prepared(
    update(UsageRecord)
    .where(UsageRecord.request_id == bindparam("of_request"))
    .values({name: bindparam(name) for name in ("ended_at", "duration_ms", "code", "input_tokens", "output_tokens")})
)
