"""A request that has been carried out, remembered so that its repetition does nothing twice."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment, RowNumber


class IdempotencyRecord(Base):
    """``number`` is what the client sent along; it counts within the workspace. No answer is kept, so no secret is.

    ``request_digest`` tells the same request from another one that was given the same number.
    """

    __tablename__ = "idempotency_record"
    __table_args__ = (UniqueConstraint("workspace_id", "number"),)

    id: Mapped[RowNumber]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    number: Mapped[str] = mapped_column(String(255))
    request_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    object_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[Moment]
