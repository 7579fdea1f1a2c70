"""A workspace owns everything: keys, provider keys, usage, members."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Id, Moment, OptionalMoment
from models.user import User


class Workspace(Base):
    __tablename__ = "workspace"

    id: Mapped[Id]
    slug: Mapped[str] = mapped_column(String(60), unique=True)
    name: Mapped[str] = mapped_column(String(60))
    plan: Mapped[str] = mapped_column(String(30))
    # Set by the operator; None means what the plan gives.
    requests_per_minute: Mapped[int | None]
    # Spending limits in nano-dollars for a UTC day and month; None means no limit.
    daily_limit_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    monthly_limit_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    # Whether models of unknown price may be called under a limit.
    allow_unknown_price: Mapped[bool] = mapped_column(default=False, server_default=false())
    # The zone that new members begin with, an IANA name.
    time_zone: Mapped[str] = mapped_column(String(40), default="UTC", server_default="UTC")
    # The operator's words about the plan, such as when it is renewed.
    plan_words: Mapped[str | None] = mapped_column(String(300))
    created_at: Mapped[Moment]


class Membership(Base):
    """A user's place in a workspace, with one role."""

    __tablename__ = "membership"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[Moment]
    last_seen_at: Mapped[OptionalMoment]

    user: Mapped[User] = relationship()
    workspace: Mapped[Workspace] = relationship()
