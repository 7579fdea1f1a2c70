"""A browser that is signed in. The cookie carries a random token; this row alone makes it worth something."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary, String, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Id, Moment, OptionalMoment, Words
from models.user import User


class LoginSession(Base):
    __tablename__ = "login_session"

    id: Mapped[Id]
    token_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    # The workspace this browser is looking at; None for who belongs to none.
    workspace_id: Mapped[str | None] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Moment]
    last_seen_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    address: Mapped[str | None] = mapped_column(String(45))
    client: Mapped[str | None] = mapped_column(String(200))

    # How the person proved who they are: "password", "totp", "recovery_code", "passkey", "oidc".
    methods: Mapped[list[str]] = mapped_column(Words, default=list, server_default="")
    # The last time they proved it, at sign-in or since; None means at sign-in.
    proved_at: Mapped[OptionalMoment]
    # Whether the cookie outlives the browser.
    remembered: Mapped[bool] = mapped_column(default=False, server_default=false())

    user: Mapped[User] = relationship()
