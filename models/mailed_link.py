"""A link that was sent by mail: whoever opens it can read mail at that address."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment, OptionalMoment


class MailedLink(Base):
    """Good once and for a short time. Only a digest of what is in the link is kept."""

    __tablename__ = "mailed_link"

    id: Mapped[Id]
    # "confirm_email", "reset_password" or "change_email".
    purpose: Mapped[str] = mapped_column(String(20))
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    email: Mapped[str] = mapped_column(String(254))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment] = mapped_column(index=True)
    used_at: Mapped[OptionalMoment]
