"""Work in the background that one process at a time does."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, OptionalMoment


class Job(Base):
    """A lease: the holder does the work until ``held_until``; then anybody may take it over."""

    __tablename__ = "job"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    holder: Mapped[str | None] = mapped_column(String(32))
    held_until: Mapped[OptionalMoment]
    last_run_at: Mapped[OptionalMoment]
    # The last row that was looked at, of a table whose rows are only added.
    seen_id: Mapped[int | None] = mapped_column(BigInteger)
