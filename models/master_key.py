"""How often each master key of the vault has sealed: a key must not be used beyond a bound (NIST SP 800-38D)."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Moment


class MasterKeyUse(Base):
    """A master key, by the public name ``services.vault.key_id`` gives it. Never the key itself."""

    __tablename__ = "master_key_use"

    key_id: Mapped[str] = mapped_column(String(8), primary_key=True)
    seals: Mapped[int] = mapped_column(BigInteger)
    first_used_at: Mapped[Moment]
