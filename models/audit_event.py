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
    # 1: SHA-256, which whoever writes to the table can make; 2: a MAC under a key that is not in the database.
    hash_version: Mapped[int] = mapped_column(default=1, server_default="1")


class AuditHead(Base):
    """The last entry of a workspace's chain, under a MAC: what is missing at the end shows, too."""

    __tablename__ = "audit_head"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int]
    mac: Mapped[bytes] = mapped_column(LargeBinary(32))


class AuditCheck(Base):
    """The last time a workspace's chain was verified: up to which entry, and the first broken one if there is one."""

    __tablename__ = "audit_check"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int]
    checked_at: Mapped[Moment]
    broken_number: Mapped[int | None]
