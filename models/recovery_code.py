"""Codes for who has lost their second factor, each good once."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment


class RecoveryCode(Base):
    __tablename__ = "recovery_code"

    id: Mapped[Id]
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[Moment]
    used_at: Mapped[OptionalMoment]
