"""The tables, one file per noun. Importing this package makes them all known to SQLAlchemy."""

from models import postgresql, sqlite  # noqa: F401 - their listeners set up every connection
from models.access_request import AccessRequest
from models.api_key import ApiKey, ApiKeySecret, KeyFingerprint
from models.audit_event import AuditCheck, AuditEvent, AuditHead
from models.base import Base
from models.custom_scope import CustomScope
from models.external_identity import ExternalIdentity
from models.idempotency import IdempotencyRecord
from models.invitation import Invitation
from models.job import Job
from models.login_session import LoginSession
from models.mail import MailMessage
from models.mailed_link import MailedLink
from models.master_key import MasterKeyUse
from models.notice import KeyAddress, Notice
from models.passkey import Passkey
from models.provider_key import ProviderKey
from models.recovery_code import RecoveryCode
from models.server_process import ServerProcess
from models.setup_link import SetupLink
from models.sign_in_attempt import SignInAttempt
from models.spending import SpendingCounter, SpendingHold
from models.totp_secret import TotpSecret
from models.usage import UsageRecord
from models.user import User
from models.webhook import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent, WebhookSecret
from models.workspace import Membership, Workspace

__all__ = [
    "AccessRequest",
    "ApiKey",
    "ApiKeySecret",
    "AuditCheck",
    "AuditEvent",
    "AuditHead",
    "Base",
    "CustomScope",
    "ExternalIdentity",
    "IdempotencyRecord",
    "Invitation",
    "Job",
    "KeyAddress",
    "KeyFingerprint",
    "LoginSession",
    "MailMessage",
    "MailedLink",
    "MasterKeyUse",
    "Membership",
    "Notice",
    "Passkey",
    "ProviderKey",
    "RecoveryCode",
    "ServerProcess",
    "SetupLink",
    "SignInAttempt",
    "SpendingCounter",
    "SpendingHold",
    "TotpSecret",
    "UsageRecord",
    "User",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "WebhookSecret",
    "Workspace",
]
