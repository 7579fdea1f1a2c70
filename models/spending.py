"""Money spent and held under spending limits, in nano-dollars (0.000000001 USD)."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment, Words


class SpendingCounter(Base):
    """What a workspace or a key spent in one period, and what its calls in progress hold.

    Kept only while a limit is set. ``period`` is a UTC day (``2026-11-21``) or month (``2026-11``).
    """

    __tablename__ = "spending_counter"

    owner_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    period: Mapped[str] = mapped_column(String(10), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    spent_nano_usd: Mapped[int] = mapped_column(BigInteger)
    held_nano_usd: Mapped[int] = mapped_column(BigInteger)
    # A young counter may lack calls that were in progress when it was made, so it is counted again.
    created_at: Mapped[Moment]


class SpendingHold(Base):
    """What one call in progress may cost at most, held in the counters it names."""

    __tablename__ = "spending_hold"

    request_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    # The process that works on the call; when it has died, the hold is released.
    process_id: Mapped[str] = mapped_column(String(32), index=True)
    # The counters, each as ``owner_id/period``.
    counters: Mapped[list[str]] = mapped_column(Words())
    nano_usd: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[Moment]
