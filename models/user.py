"""A person with a login."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment, Words


class User(Base):
    __tablename__ = "user"

    id: Mapped[Id]
    email: Mapped[str] = mapped_column(String(254), unique=True)
    # Empty for who signs in through an identity provider and has set no password: no password matches it.
    password_hash: Mapped[str] = mapped_column(String(255))
    password_changed_at: Mapped[OptionalMoment]
    is_operator: Mapped[bool]
    # Whoever may read mail at the address has said so; until then nothing is sent there but the link that asks.
    email_confirmed_at: Mapped[OptionalMoment]
    # What others call the person; without one they see the address.
    name: Mapped[str | None] = mapped_column(String(60))
    # An IANA name; days and moments on pages are of this zone.
    time_zone: Mapped[str] = mapped_column(String(40), default="UTC", server_default="UTC")
    # "light", "dark", or None: as the system.
    theme: Mapped[str | None] = mapped_column(String(10))
    # Kinds of notices that the person has switched off; see services/notice_choices.py.
    muted_notices: Mapped[list[str]] = mapped_column(Words, default=list, server_default="")
    created_at: Mapped[Moment]
    last_sign_in_at: Mapped[OptionalMoment]
    # Set by the operator: the account cannot be used any more.
    closed_at: Mapped[OptionalMoment]

    @property
    def display_name(self) -> str:
        """What others see: the name, or without one the address."""
        return self.name or self.email
