"""The secret that a person's authenticator app shares with the portal (RFC 6238), sealed."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment


class TotpSecret(Base):
    """At most one for each person. It counts once a code from the app has been shown: ``confirmed_at``."""

    __tablename__ = "totp_secret"

    id: Mapped[Id]
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), unique=True)
    # A record of services.vault: readable only with the master key and only in this row.
    sealed: Mapped[str] = mapped_column(String(1000))
    # The time step of the last code that was taken: none is taken twice.
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[Moment]
    confirmed_at: Mapped[OptionalMoment]
