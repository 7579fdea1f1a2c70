"""A customer's own key at a provider, sealed."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment


class ProviderKey(Base):
    __tablename__ = "provider_key"
    __table_args__ = (UniqueConstraint("workspace_id", "provider"),)

    id: Mapped[Id]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    provider: Mapped[str] = mapped_column(String(40))
    # A record of services.vault: readable only with the master key and only in this row.
    sealed: Mapped[str] = mapped_column(String(1000))
    state: Mapped[str] = mapped_column(String(20))
    checked_at: Mapped[OptionalMoment]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    created_by_name: Mapped[str] = mapped_column(String(254))
