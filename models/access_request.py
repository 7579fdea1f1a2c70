"""A workspace's request for a plan, as Contact sales sends it: the operator's queue."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Id, Moment, OptionalMoment
from models.workspace import Workspace


class AccessRequest(Base):
    """``state`` is "open", "granted", "declined" or "withdrawn"; a workspace has at most one open."""

    __tablename__ = "access_request"
    __table_args__ = (
        Index(
            "uq_access_request_open",
            "workspace_id",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
    )

    id: Mapped[Id]
    # What people call it: counted from 1 over the whole portal.
    number: Mapped[int] = mapped_column(unique=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    plan: Mapped[str] = mapped_column(String(30))
    use: Mapped[str] = mapped_column(Text)
    volume: Mapped[str] = mapped_column(String(200))
    reply_to: Mapped[str] = mapped_column(String(254))
    asked_by_id: Mapped[str | None] = mapped_column(ForeignKey("user.id", ondelete="SET NULL"))
    asked_by_name: Mapped[str] = mapped_column(String(254))
    state: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[Moment]
    decided_at: Mapped[OptionalMoment]
    decided_by_name: Mapped[str | None] = mapped_column(String(254))
    # The plan that was granted, and what the operator wrote.
    granted_plan: Mapped[str | None] = mapped_column(String(30))
    answer: Mapped[str | None] = mapped_column(Text)

    workspace: Mapped[Workspace] = relationship()
