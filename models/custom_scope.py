"""A scope of a workspace's own, with which its keys guard its own services."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment


class CustomScope(Base):
    __tablename__ = "custom_scope"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[Id]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    # ``resource:action``, such as ``emails:send``.
    name: Mapped[str] = mapped_column(String(60))
    meaning: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[Moment]
    created_by_name: Mapped[str] = mapped_column(String(254))
