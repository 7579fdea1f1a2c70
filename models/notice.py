"""What people have been told, so that nobody is told twice."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment, RowNumber


class Notice(Base):
    """``occasion`` tells one time from the next, such as the month of a spending limit."""

    __tablename__ = "notice"
    __table_args__ = (
        Index("uq_notice_once", "workspace_id", "kind", "subject_id", "occasion", unique=True),
        Index("ix_notice_created_at", "created_at"),
    )

    id: Mapped[RowNumber]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[str] = mapped_column(String(64))
    occasion: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[Moment]


class KeyAddress(Base):
    """An address that a key was used from."""

    __tablename__ = "key_address"

    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(String(45), primary_key=True)
    first_seen_at: Mapped[Moment]
