"""The server processes at work, each alive as long as it says so again and again."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Moment


class ServerProcess(Base):
    """A process that answers calls. What it had begun is cleared up once ``alive_until`` has passed."""

    __tablename__ = "server_process"

    id: Mapped[Id]
    node: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[Moment]
    alive_until: Mapped[Moment]
