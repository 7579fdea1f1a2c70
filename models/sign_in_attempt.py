"""A sign-in, or another proof of who somebody is, that has begun and is not finished."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, Words


class SignInAttempt(Base):
    """The cookie carries a random token whose digest finds the row. It gives no access to anything."""

    __tablename__ = "sign_in_attempt"

    id: Mapped[Id]
    token_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    # What is waited for: "second_factor", "passkey", "passkey_registration" or "oidc"; "proof" counts a wrong code of
    # who is signed in.
    kind: Mapped[str] = mapped_column(String(30))
    # Known after the first factor.
    user_id: Mapped[str | None] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    # What was proved so far, as in LoginSession.
    methods: Mapped[list[str]] = mapped_column(Words, default=list, server_default="")
    remembered: Mapped[bool]
    # A challenge, a nonce: what the answer is held against.
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    tries: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment] = mapped_column(index=True)
