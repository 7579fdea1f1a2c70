"""The tables, one file per noun. Importing this package makes them all known to SQLAlchemy."""

from models import sqlite  # noqa: F401 - its listeners set up every SQLite connection
from models.api_key import ApiKey, ApiKeySecret, KeyFingerprint
from models.audit_event import AuditEvent
from models.base import Base
from models.custom_scope import CustomScope
from models.idempotency import IdempotencyRecord
from models.job import Job
from models.login_session import LoginSession
from models.mail import MailMessage
from models.master_key import MasterKeyUse
from models.provider_key import ProviderKey
from models.server_process import ServerProcess
from models.setup_link import SetupLink
from models.spending import SpendingCounter, SpendingHold
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
    "Job",
    "KeyFingerprint",
    "LoginSession",
    "MailMessage",
    "MasterKeyUse",
    "Membership",
    "ProviderKey",
    "ServerProcess",
    "SetupLink",
    "SpendingCounter",
    "SpendingHold",
    "UsageRecord",
    "User",
    "Workspace",
]
