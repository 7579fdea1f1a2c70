"""A person's passkey: the public half of a WebAuthn credential."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment, Words


class Passkey(Base):
    __tablename__ = "passkey"

    id: Mapped[Id]
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    credential_id: Mapped[bytes] = mapped_column(LargeBinary(1023), unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary(2000))
    # What the authenticator counts; one that goes back has been copied.
    sign_count: Mapped[int] = mapped_column(BigInteger)
    transports: Mapped[list[str]] = mapped_column(Words, default=list, server_default="")
    # Whether the person's other devices may have it too.
    backed_up: Mapped[bool]
    name: Mapped[str] = mapped_column(String(60))
    created_at: Mapped[Moment]
    last_used_at: Mapped[OptionalMoment]
