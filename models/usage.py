"""One row for each call that named one of our keys, answered or refused."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment, OptionalMoment, RowNumber


class UsageRecord(Base):
    """What a call was, what came of it and what it took.

    Somebody at the playground calls without a key: then ``user_id`` tells who it was.
    ``ended_at`` is empty while an answer is being streamed. A token count is None when nothing is known of it, and
    ``estimated`` says that it was not told by the provider. A cost of None is unknown, never nothing.
    """

    __tablename__ = "usage_record"
    __table_args__ = (
        Index("ix_usage_record_workspace_id_started_at", "workspace_id", "started_at"),
        # What a key did lately: its last use, its last calls, who used a secret since, attempts since its end.
        Index("ix_usage_record_api_key_id_started_at", "api_key_id", "started_at"),
        # Of all calls of a key few are attempts with an ended secret, which are no use of it.
        Index(
            "ix_usage_record_attempts",
            "api_key_id",
            "started_at",
            sqlite_where=text("code = 'invalid_api_key'"),
            postgresql_where=text("code = 'invalid_api_key'"),
        ),
        # Calls in progress are few; those of a dead process have to be found.
        Index(
            "ix_usage_record_open",
            "process_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[RowNumber]
    request_id: Mapped[str] = mapped_column(String(32), unique=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    api_key_id: Mapped[str | None] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"))
    secret_id: Mapped[str | None] = mapped_column(String(32))
    user_id: Mapped[str | None] = mapped_column(String(32))
    environment: Mapped[str] = mapped_column(String(10))
    endpoint: Mapped[str] = mapped_column(String(60))
    started_at: Mapped[Moment]
    ended_at: Mapped[OptionalMoment]
    duration_ms: Mapped[int | None]
    status: Mapped[int]
    # The error's code; None for an answer.
    code: Mapped[str | None] = mapped_column(String(60))
    # What a refusal said besides, such as the scope that was missing.
    details: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    streamed: Mapped[bool]
    # What the caller asked for, when another model was chosen for it, and why.
    requested_model: Mapped[str | None] = mapped_column(String(200))
    route_reason: Mapped[str | None] = mapped_column(String(200))
    model: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str | None] = mapped_column(String(40))
    input_tokens: Mapped[int | None]
    # Those of the input that the provider had kept from before and charges less for.
    cached_input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    estimated: Mapped[bool] = mapped_column(default=False, server_default=false())
    cost_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    # The version of the price table that the cost comes from.
    price_version: Mapped[str | None] = mapped_column(String(40))
    # The server process that works on it, or worked.
    process_id: Mapped[str | None] = mapped_column(String(32))
    address: Mapped[str | None] = mapped_column(String(45))
    client: Mapped[str | None] = mapped_column(String(200))
