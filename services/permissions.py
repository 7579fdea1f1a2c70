"""What keys and people may do: scopes ``resource:action`` for keys, roles for members."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from models import ApiKey


class Scope(StrEnum):
    """The built-in scopes, in alphabetical order."""

    AUDIT_READ = "audit:read"
    BILLING_READ = "billing:read"
    CHAT_WRITE = "chat:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    MEMBERS_READ = "members:read"
    MODELS_READ = "models:read"
    PROVIDERS_READ = "providers:read"
    PROVIDERS_WRITE = "providers:write"
    USAGE_READ = "usage:read"
    WEBHOOKS_MANAGE = "webhooks:manage"


SCOPE_MEANINGS = {
    Scope.AUDIT_READ: "Read the audit log.",
    Scope.BILLING_READ: "Read the plan and what it costs.",
    Scope.CHAT_WRITE: "Send prompts to models.",
    Scope.KEYS_READ: "List API keys and check whether one is valid.",
    Scope.KEYS_WRITE: "Create, rotate, disable and delete API keys.",
    Scope.MEMBERS_READ: "List the members of the workspace.",
    Scope.MODELS_READ: "List the models that can be used.",
    Scope.PROVIDERS_READ: "See which providers are connected.",
    Scope.PROVIDERS_WRITE: "Connect and disconnect providers.",
    Scope.USAGE_READ: "Read requests, tokens and cost.",
    Scope.WEBHOOKS_MANAGE: "Create, change and delete webhooks.",
}

# A publishable key stands in web pages for everybody to read.
PUBLISHABLE_SCOPES = frozenset(scope for scope in Scope if scope.endswith(":read") and scope != Scope.BILLING_READ)


@dataclass(frozen=True, slots=True)
class Preset:
    """A usual choice of scopes with a name of its own."""

    title: str
    scopes: tuple[Scope, ...]


PRESETS = {
    "read_write": Preset("Read & write", (Scope.CHAT_WRITE, Scope.MODELS_READ, Scope.USAGE_READ)),
    "read_only": Preset("Read-only", (Scope.MODELS_READ, Scope.USAGE_READ)),
    "full": Preset("Full access", tuple(Scope)),
    "admin": Preset("Admin", tuple(scope for scope in Scope if scope != Scope.CHAT_WRITE)),
    "webhook": Preset("Webhook", (Scope.WEBHOOKS_MANAGE,)),
}


class Role(StrEnum):
    """The four roles of a member."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"

    @property
    def rank(self) -> _Rank:
        return _Rank[self.name]

    @property
    def article(self) -> str:
        return "an" if self.value[0] in "aeiou" else "a"

    def includes(self, other: Role) -> bool:
        """Tell whether this role may do all that ``other`` may."""
        return self.rank >= other.rank


class _Rank(IntEnum):
    VIEWER = 1
    DEVELOPER = 2
    ADMIN = 3
    OWNER = 4


@dataclass(frozen=True, slots=True)
class Ability:
    """A row of the table of roles: what it is, and the least role that may do it.

    ``own_from`` is the role that may do it with what is its own.
    """

    words: str
    least: Role
    own_from: Role | None = None

    def allowed(self, role: Role) -> str:
        """Return ``yes``, ``own`` or ``no``."""
        if role.includes(self.least):
            return "yes"
        return "own" if self.own_from is not None and role.includes(self.own_from) else "no"


MATRIX = {
    "see": Ability("See pages and usage", Role.VIEWER),
    "keys": Ability("Create, rotate, disable and delete API keys", Role.ADMIN, own_from=Role.DEVELOPER),
    "try": Ability("Try models in the playground", Role.DEVELOPER),
    "connections": Ability("Manage provider keys, custom scopes, webhooks and spending limits", Role.ADMIN),
    "people": Ability("Manage members, read the audit log", Role.ADMIN),
    "workspace": Ability("Rename the workspace", Role.ADMIN),
    "ownership": Ability("Ask for a plan, appoint owners, delete the workspace", Role.OWNER),
}


# What a developer may not do at the pages, or only with keys of their own, while a key with the scope does it with all.
_SCOPES_OF_ADMINS = frozenset(
    {Scope.AUDIT_READ, Scope.KEYS_WRITE, Scope.MEMBERS_READ, Scope.PROVIDERS_WRITE, Scope.WEBHOOKS_MANAGE}
)


def may_grant(role: Role, scope: str) -> bool:
    """Tell whether a person may make a key with the scope: nobody makes one that may do more than themselves."""
    return role.includes(Role.ADMIN) or scope not in _SCOPES_OF_ADMINS


def may_create_keys(role: Role) -> bool:
    return role.includes(Role.DEVELOPER)


def may_limit_spending(role: Role) -> bool:
    return role.includes(Role.ADMIN)


def may_extend_key(role: Role, user_id: str, key: ApiKey) -> bool:
    """Tell whether a person may give a key new life: who may end it, and could make one like it."""
    return may_manage_key(role, user_id, key) and all(may_grant(role, scope) for scope in key.scopes)


def may_manage_key(role: Role, user_id: str, key: ApiKey) -> bool:
    """Owners and admins manage every key of the workspace, developers those they made."""
    return role.includes(Role.ADMIN) or (role is Role.DEVELOPER and key.created_by_id == user_id)
