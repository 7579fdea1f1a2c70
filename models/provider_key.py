"""A customer's own key at a provider, sealed."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
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
    # What the customer calls it; no part of the key is ever shown.
    label: Mapped[str] = mapped_column(String(60), default="", server_default="")
    state: Mapped[str] = mapped_column(String(20))
    # When the state was last seen, and what the provider said then, without the key.
    state_seen_at: Mapped[OptionalMoment]
    state_words: Mapped[str | None] = mapped_column(String(500))
    # What the provider told of the account's credit at the last check, in nano-dollars; most tell nothing.
    credit_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    checked_at: Mapped[OptionalMoment]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    created_by_name: Mapped[str] = mapped_column(String(254))
