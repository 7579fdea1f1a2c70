"""The one-time link that makes the first operator."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment, OptionalMoment


class SetupLink(Base):
    """At most one row. The link is derived from ``nonce`` and the signing key; used, it has no nonce any more."""

    __tablename__ = "setup_link"
    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    nonce: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[Moment]
    used_at: Mapped[OptionalMoment]
