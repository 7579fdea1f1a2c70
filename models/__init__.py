"""The tables, one file per noun. Importing this package makes them all known to SQLAlchemy."""

from models import sqlite  # noqa: F401 - its listeners set up every SQLite connection
from models.api_key import ApiKey, ApiKeySecret, KeyFingerprint
from models.audit_event import AuditEvent
from models.base import Base
from models.custom_scope import CustomScope
from models.idempotency import IdempotencyRecord
from models.login_session import LoginSession
from models.provider_key import ProviderKey
from models.setup_link import SetupLink
from models.usage import UsageRecord
from models.user import User
from models.workspace import Membership, Workspace

__all__ = [
    "ApiKey",
    "ApiKeySecret",
    "AuditEvent",
    "Base",
    "CustomScope",
    "IdempotencyRecord",
    "KeyFingerprint",
    "LoginSession",
    "Membership",
    "ProviderKey",
    "SetupLink",
    "UsageRecord",
    "User",
    "Workspace",
]
