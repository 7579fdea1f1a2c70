"""An API key is an identity with settings and a history; its secret is what it is proved with."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, String, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Id, Moment, OptionalMoment, Words, now


class ApiKey(Base):
    __tablename__ = "api_key"
    __table_args__ = (
        CheckConstraint("kind IN ('secret', 'publishable')", name="kind"),
        CheckConstraint("environment IN ('live', 'test')", name="environment"),
        # A name may be given again once the key that had it is deleted.
        Index(
            "uq_api_key_living_name",
            "workspace_id",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(60))
    # The format prefix at the time of making, part of the mask.
    prefix: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20))
    environment: Mapped[str] = mapped_column(String(10))
    scopes: Mapped[list[str]] = mapped_column(Words())
    preset: Mapped[str | None] = mapped_column(String(30))
    # Restrictions. An empty list and None mean: not restricted.
    allowed_models: Mapped[list[str]] = mapped_column(Words(), default=list, server_default="")
    allowed_networks: Mapped[list[str]] = mapped_column(Words(), default=list, server_default="")
    allowed_origins: Mapped[list[str]] = mapped_column(Words(), default=list, server_default="")
    requests_per_minute: Mapped[int | None]
    # Spending limits in nano-dollars for a UTC day and month, beside the workspace's.
    daily_limit_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    monthly_limit_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    allow_unknown_price: Mapped[bool] = mapped_column(default=False, server_default=false())
    expires_at: Mapped[OptionalMoment]
    disabled_at: Mapped[OptionalMoment]
    deleted_at: Mapped[OptionalMoment]
    created_at: Mapped[Moment]
    created_by_id: Mapped[str | None] = mapped_column(ForeignKey("user.id", ondelete="SET NULL"), index=True)
    created_by_name: Mapped[str] = mapped_column(String(254))

    # The current one first. It is told by having no end, because a clock that was put back tells nothing.
    secrets: Mapped[list[ApiKeySecret]] = relationship(
        back_populates="api_key",
        order_by="ApiKeySecret.ends_at.is_not(None), ApiKeySecret.created_at.desc()",
        cascade="all, delete-orphan",
        lazy="selectin",
    )

    @property
    def mask(self) -> str | None:
        """The newest secret as lists show it (``arka_sk_1234...vwxyz``), None once the key is deleted."""
        return self.secrets[0].mask if self.secrets else None

    def status(self, at: datetime | None = None) -> str:
        """Return ``deleted``, ``disabled``, ``expired`` or ``active``, the first that holds."""
        if self.deleted_at is not None:
            return "deleted"
        if self.disabled_at is not None:
            return "disabled"
        if self.expires_at is not None and self.expires_at <= (at or now()):
            return "expired"
        return "active"


class ApiKeySecret(Base):
    """What a key is proved with: only its keyed digest, and the few characters that lists show.

    A key has one living secret, two during a rotation. A deleted key has none: the rows are erased.
    """

    __tablename__ = "api_key_secret"

    id: Mapped[Id]
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    first_characters: Mapped[str] = mapped_column(String(4))
    last_characters: Mapped[str] = mapped_column(String(5))
    created_at: Mapped[Moment]
    # The end of a rotation's overlap; None while this is the current secret.
    ends_at: Mapped[OptionalMoment]

    api_key: Mapped[ApiKey] = relationship(back_populates="secrets")

    @property
    def mask(self) -> str:
        """The secret as lists show it: prefix, first four, last five characters."""
        key = self.api_key
        kind = "sk" if key.kind == "secret" else "pk"
        test = "test_" if key.environment == "test" else ""
        return f"{key.prefix}_{kind}_{test}{self.first_characters}...{self.last_characters}"


class KeyFingerprint(Base):
    """Recognises a secret after its end, so that later attempts with it can be shown. Opens nothing.

    The digest is made under another key than the one that lets a secret in; it outlives the secret's own row.
    """

    __tablename__ = "key_fingerprint"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), index=True)
    secret_id: Mapped[str] = mapped_column(String(32))
