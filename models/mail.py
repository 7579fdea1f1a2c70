"""The outbox: a message is added in the transaction of the act it tells of, and sent after it."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment


class MailMessage(Base):
    """A message to one person. ``sent_at`` is empty until it was handed over; ``failed_at`` tells that it never will
    be."""

    __tablename__ = "mail_message"
    __table_args__ = (
        Index(
            "ix_mail_message_waiting",
            "next_attempt_at",
            sqlite_where=text("sent_at IS NULL AND failed_at IS NULL"),
            postgresql_where=text("sent_at IS NULL AND failed_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    workspace_id: Mapped[str | None] = mapped_column(ForeignKey("workspace.id", ondelete="SET NULL"), index=True)
    recipient: Mapped[str] = mapped_column(String(254))
    subject: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    html: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Moment]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[Moment]
    sent_at: Mapped[OptionalMoment]
    failed_at: Mapped[OptionalMoment]
    last_error: Mapped[str | None] = mapped_column(String(500))
