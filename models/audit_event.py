"""The audit log: who did what, to what, when and from where. Rows are only ever added."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment, RowNumber


class AuditEvent(Base):
    """An entry of a workspace's chain; ``hash`` covers the entry and the hash of the one before it."""

    __tablename__ = "audit_event"
    __table_args__ = (Index("uq_audit_event_workspace_id_number", "workspace_id", "number", unique=True),)

    id: Mapped[RowNumber]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    # Counts from 1 within the workspace, so that a missing entry shows.
    number: Mapped[int]
    at: Mapped[Moment]
    actor_kind: Mapped[str] = mapped_column(String(20))
    actor_id: Mapped[str | None] = mapped_column(String(32))
    actor_name: Mapped[str] = mapped_column(String(254))
    action: Mapped[str] = mapped_column(String(40))
    object_id: Mapped[str | None] = mapped_column(String(32))
    object_name: Mapped[str | None] = mapped_column(String(254))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    address: Mapped[str | None] = mapped_column(String(45))
    client: Mapped[str | None] = mapped_column(String(200))
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))
