"""Webhooks: where a workspace wants to be told of events, what happened, and what was delivered."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Id, Moment, OptionalMoment, RowNumber, Words


class WebhookEndpoint(Base):
    """An address and the kinds of events it is told of; no kinds mean all."""

    __tablename__ = "webhook_endpoint"

    id: Mapped[Id]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(String(100))
    events: Mapped[list[str]] = mapped_column(Words)
    created_by_name: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[Moment]
    # Nothing is sent while it is set: by a person, or after a long time of failures.
    disabled_at: Mapped[OptionalMoment]
    disabled_why: Mapped[str | None] = mapped_column(String(100))
    # Since when no delivery has worked, how many have not, and what came back last.
    failing_since: Mapped[OptionalMoment]
    failures: Mapped[int] = mapped_column(default=0)
    last_answer: Mapped[str | None] = mapped_column(String(200))
    last_delivery_at: Mapped[OptionalMoment]

    # The newest first; at most two are alive.
    secrets: Mapped[list[WebhookSecret]] = relationship(
        order_by="WebhookSecret.created_at.desc()", cascade="all, delete-orphan"
    )


class WebhookSecret(Base):
    """What deliveries are signed with, sealed. The one without an end is the current one."""

    __tablename__ = "webhook_secret"

    id: Mapped[Id]
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), index=True)
    # A record of services.vault: readable only with the master key and only in this row.
    sealed: Mapped[str] = mapped_column(String(1000))
    created_at: Mapped[Moment]
    ends_at: Mapped[OptionalMoment]


class WebhookEvent(Base):
    """Something that happened, added in the transaction of the act. ``queued_at`` is set once it has deliveries."""

    __tablename__ = "webhook_event"
    __table_args__ = (
        Index(
            "ix_webhook_event_unqueued",
            "created_at",
            sqlite_where=text("queued_at IS NULL"),
            postgresql_where=text("queued_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(60))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[Moment]
    queued_at: Mapped[OptionalMoment]


class WebhookDelivery(Base):
    """One event for one endpoint. ``delivered_at`` and ``failed_at`` are empty while it is still tried."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index(
            "ix_webhook_delivery_waiting",
            "next_attempt_at",
            sqlite_where=text("delivered_at IS NULL AND failed_at IS NULL"),
            postgresql_where=text("delivered_at IS NULL AND failed_at IS NULL"),
        ),
        Index("ix_webhook_delivery_endpoint_id_created_at", "endpoint_id", "created_at"),
    )

    id: Mapped[Id]
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoint.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(ForeignKey("webhook_event.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Moment]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[Moment]
    delivered_at: Mapped[OptionalMoment]
    failed_at: Mapped[OptionalMoment]

    event: Mapped[WebhookEvent] = relationship()


class WebhookAttempt(Base):
    """One try to deliver, for the log."""

    __tablename__ = "webhook_attempt"

    id: Mapped[RowNumber]
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_delivery.id", ondelete="CASCADE"), index=True)
    at: Mapped[Moment]
    duration_ms: Mapped[int]
    # The status of the answer, or what went wrong before there was one.
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(200))
    # The beginning of what was answered.
    answer: Mapped[str | None] = mapped_column(String(500))
