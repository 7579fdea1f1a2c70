"""What pages show about keys and providers, worked out from the records; the templates only lay it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from blueprints.times import current_zone
from models import ApiKey, ApiKeySecret, AuditEvent, ProviderKey, Workspace
from models.base import now
from services import audit, custom_scopes, keys, provider_keys, rotation, spending
from services.gateway.simulator import PROVIDER as SIMULATOR
from services.money import as_usd
from services.parts import parts
from services.permissions import PRESETS, SCOPE_MEANINGS, Role, Scope, may_manage_key
from services.rotation import SecretUse
from services.usage import OTHERS, Figures

QUIET = timedelta(hours=24)
EXPIRES_SOON = timedelta(days=7)
IN_USE = timedelta(days=30)
DAYS = 7


@dataclass(frozen=True, slots=True)
class PreviousView:
    """The secret that a rotation replaced, while it still works. ``users`` are those since the rotation."""

    secret: ApiKeySecret
    replaced_at: datetime
    users: list[SecretUse]

    @property
    def requests(self) -> int:
        return sum(user.count for user in self.users)

    @property
    def latest(self) -> SecretUse | None:
        return self.users[0] if self.users else None

    @property
    def quiet(self) -> bool:
        """Whether it was replaced a day ago and nobody has used it for a day."""
        since = max(self.replaced_at, self.latest.last_at) if self.latest else self.replaced_at
        return now() - since >= QUIET


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as pages show it. ``days`` counts its requests, the oldest day first."""

    key: ApiKey
    last_use: keys.LastUse | None
    days: list[int]
    paused: bool
    may_manage: bool
    previous: PreviousView | None = None

    @property
    def state(self) -> str:
        """The key's status; without API access all living keys are paused."""
        status = self.key.status()
        return "paused" if self.paused and status != "deleted" else status

    @property
    def requests(self) -> int:
        return sum(self.days)

    @property
    def in_use(self) -> bool:
        """Whether it was used so lately that deleting it asks for its name."""
        return self.last_use is not None and now() - self.last_use.at < IN_USE

    @property
    def expired(self) -> bool:
        return self.key.expires_at is not None and self.key.expires_at <= now()

    @property
    def expires_soon(self) -> bool:
        return self.key.expires_at is not None and not self.expired and self.key.expires_at - now() < EXPIRES_SOON

    @property
    def secret_age_days(self) -> int:
        return (now() - self.key.secrets[0].created_at).days if self.key.secrets else 0

    @property
    def due_for_rotation(self) -> bool:
        return rotation.is_due(self.key)

    @property
    def may_rotate(self) -> bool:
        """Whether this person can give it a new secret now: not without API access, not once it has expired."""
        return self.may_manage and not self.paused and not self.expired and self.key.deleted_at is None

    @property
    def restricted(self) -> bool:
        key = self.key
        lists = (key.allowed_models, key.allowed_networks, key.allowed_origins)
        return any(lists) or key.requests_per_minute is not None or bool(self.spending_limits)

    @property
    def spending_limits(self) -> list[tuple[str, str]]:
        """The key's spending limits in words, each with its amount in dollars."""
        limits = (
            ("Spending per month", self.key.monthly_limit_nano_usd),
            ("Spending per day", self.key.daily_limit_nano_usd),
        )
        return [(title, f"${as_usd(nano_usd)}") for title, nano_usd in limits if nano_usd is not None]

    @property
    def kind_title(self) -> str:
        return self.key.kind.capitalize()

    @property
    def permissions(self) -> str:
        """The preset's name, or the one scope, or how many."""
        if self.key.preset in PRESETS:
            return PRESETS[self.key.preset].title
        return self.key.scopes[0] if len(self.key.scopes) == 1 else f"{len(self.key.scopes)} scopes"


def key_views(workspace: Workspace, shown: Iterable[ApiKey], *, role: Role, user_id: str) -> list[KeyView]:
    """Return keys of the workspace as somebody with this role sees them."""
    shown = list(shown)
    ids = [key.id for key in shown]
    uses, counts = keys.last_uses(workspace, ids), keys.requests_in_days(workspace, DAYS, ids, current_zone())
    paused = not parts().plans.has_api_access(workspace)
    return [
        KeyView(
            key=key,
            last_use=uses.get(key.id),
            days=counts.get(key.id, [0] * DAYS),
            paused=paused,
            may_manage=may_manage_key(role, user_id, key),
            previous=_previous(key),
        )
        for key in shown
    ]


def _previous(key: ApiKey) -> PreviousView | None:
    secret = rotation.previous_secret(key)
    return PreviousView(secret, key.secrets[0].created_at, rotation.users_of(key, secret)) if secret else None


@dataclass(frozen=True, slots=True)
class ProviderView:
    """A connection to a provider as pages show it. ``offered``: the portal still knows the provider."""

    title: str
    key: ProviderKey
    offered: bool
    spend_nano_usd: int = 0
    calls_of_unknown_cost: int = 0


def provider_view(key: ProviderKey, spend: provider_keys.Spend = provider_keys.NO_SPEND) -> ProviderView:
    """Return one connection, named as people know the provider."""
    offered = key.provider in parts().providers
    return ProviderView(provider_keys.title_of(key), key, offered, spend.nano_usd, spend.unknown)


def provider_views(workspace: Workspace, *, with_spend: bool = False) -> list[ProviderView]:
    """Return the workspace's connections; what they cost this month is added up only when it is shown."""
    spent = provider_keys.spend_this_month(workspace) if with_spend else {}
    found = provider_keys.of_workspace(workspace)
    return [provider_view(key, spent.get(key.provider, provider_keys.NO_SPEND)) for key in found]


def provider_title(name: str | None) -> str:
    """Return what people call a provider; the simulator is one too."""
    if name is None:
        return "No provider"
    table = parts().providers
    return table[name].title if name in table else "Simulator" if name == SIMULATOR else name


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The figures of one key, model or provider. ``address`` asks for it alone."""

    title: str
    figures: Figures
    address: str | None = None


def usage_rows(
    figures: Mapping[str | None, Figures],
    title_of: Callable[[str | None], str],
    address_of: Callable[[str], str] | None = None,
) -> list[UsageRow]:
    """Return figures by name as rows, the most requests first."""
    ordered = sorted(figures.items(), key=lambda item: (-item[1].requests, item[0] or ""))
    return [
        UsageRow(title_of(name), sums, address_of(name) if address_of and name not in (None, OTHERS) else None)
        for name, sums in ordered
    ]


@dataclass(frozen=True, slots=True)
class AuditLine:
    """An entry of the audit log in words. ``by``: what the actor is, when it is no person; ``details``: what it tells
    besides."""

    event: AuditEvent
    what: str
    by: str = ""
    details: str = ""


# Words for every act that a service records; a test in tests/house finds those that are missing.
_ACTS = {
    "access_request:decline": "declined",
    "access_request:grant": "granted",
    "access_request:send": "sent",
    "access_request:withdraw": "withdrew",
    "demo:create": "made the demo",
    "invitation:create": "invited",
    "invitation:resend": "invited again",
    "invitation:withdraw": "withdrew the invitation of",
    "key:change": "changed the key",
    "key:create": "created the key",
    "key:delete": "deleted the key",
    "key:disable": "disabled the key",
    "key:enable": "enabled the key",
    "key:extend_rotation": "gave the previous secret more time",
    "key:finish_rotation": "ended the previous secret",
    "key:found": "reported the key as found",
    "key:hand_over": "handed over the key",
    "key:new_address": "used the key from a new address",
    "key:rotate": "rotated the key",
    "mail:try_again": "had the message sent again:",
    "member:add": "added the member",
    "member:change_role": "changed the role of",
    "member:leave": "left the workspace",
    "member:remove": "removed the member",
    "plan:change": "changed the plan",
    "provider_key:add": "added the provider key",
    "provider_key:delete": "deleted the provider key",
    "provider_key:replace": "replaced the provider key",
    "scope:create": "defined the scope",
    "scope:delete": "removed the scope",
    "spending:limit": "set spending limits",
    "user:add_identity": "connected the identity provider",
    "user:app_add": "added an authenticator app to",
    "user:app_remove": "removed the authenticator app from",
    "user:ask_email_change": "asked to change the address",
    "user:change_email": "changed the address",
    "user:change_password": "changed the password",
    "user:close": "closed the account",
    "user:codes_refused": "entered wrong codes for",
    "user:create": "created the account",
    "user:delete": "deleted the account",
    "user:end_sessions": "signed other browsers out of",
    "user:new_sign_in": "signed in from a new place to",
    "user:passkey_add": "added a passkey to",
    "user:passkey_copied": "was refused with a passkey that may have been copied, for",
    "user:passkey_delete": "deleted a passkey of",
    "user:passkey_rename": "renamed a passkey of",
    "user:recovery_code_use": "used a recovery code of",
    "user:recovery_codes_make": "made new recovery codes for",
    "user:remove_identity": "disconnected the identity provider",
    "user:reopen": "reopened the account",
    "user:second_factor_off": "switched the second factor off for",
    "user:second_factor_on": "switched a second factor on for",
    "user:sign_in": "signed in",
    "user:stop_email_change": "stopped the change of address",
    "user:undo_email_change": "took the change of address back",
    "webhook:change": "changed the webhook",
    "webhook:create": "added the webhook",
    "webhook:delete": "deleted the webhook",
    "webhook:disable": "disabled the webhook",
    "webhook:enable": "enabled the webhook",
    "webhook:redeliver": "sent a webhook delivery again",
    "webhook:rotate_secret": "rotated the webhook’s secret",
    "workspace:change": "changed the workspace",
    "workspace:create": "created the workspace",
}


def audit_lines(workspace: Workspace, *, limit: int, object_id: str | None = None) -> list[AuditLine]:
    """Return the last entries of the workspace's log, or those about one object, in words as far as there are any."""
    events = audit.latest(workspace, limit=limit, object_id=object_id)
    return [AuditLine(event, act_title(event.action)) for event in events]


_KINDS = {
    "api_key": "API key",
    "command": "at the command line",
    "finder": "who found a key",
    "operator": "operator of the portal",
    "system": "",
}
_KIND_TITLES = {
    "access_request": "Requests for a plan",
    "invitation": "Invitations",
    "mail": "Mail",
    "webhook": "Webhooks",
    "key": "API keys",
    "provider_key": "Provider keys",
    "scope": "Custom scopes",
    "member": "Members",
    "user": "Accounts",
    "workspace": "Workspace",
    "plan": "Plan",
    "spending": "Spending limits",
}
_LONGEST_DETAILS = 300


def act_title(action: str) -> str:
    """Return an act in words; one that nobody has words for, by its plain name."""
    return _ACTS.get(action, action)


def kind_title(kind: str) -> str:
    """Return what the acts of a kind are about: ``key`` is ``API keys``."""
    return _KIND_TITLES.get(kind, kind.replace("_", " ").capitalize())


def audit_view(event: AuditEvent) -> AuditLine:
    """Return an entry as the page of the whole log shows it."""
    by = _KINDS.get(event.actor_kind, "")
    return AuditLine(event, act_title(event.action), by, _details(event.details))


def _details(details: Mapping[str, object]) -> str:
    """Return what an entry tells besides in one line: what is empty is left out."""
    given = {name: value for name, value in details.items() if value not in (None, "", [])}
    text = "; ".join(f"{name.replace('_', ' ')}: {_detail(value)}" for name, value in given.items())
    return text if len(text) <= _LONGEST_DETAILS else text[: _LONGEST_DETAILS - 1] + "…"


def _detail(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def spending_standings(workspace: Workspace, owner_id: str | None = None) -> list[spending.Standing]:
    """Return how the spending limits of the workspace and its keys stand, or those of one of them."""
    return [standing for standing in spending.standing(workspace) if owner_id in (None, standing.owner_id)]


@dataclass(frozen=True, slots=True)
class ScopeChoice:
    """A scope with what it allows."""

    name: str
    meaning: str
    publishable: bool


@dataclass(frozen=True, slots=True)
class ScopeGroup:
    """The scopes of one resource, reading before writing."""

    resource: str
    title: str
    scopes: list[ScopeChoice]


_RESOURCE_TITLES = {
    "chat": "Models and prompts",
    "models": "Models and prompts",
    "usage": "Usage",
    "keys": "API keys",
    "providers": "Provider keys",
    "billing": "Billing",
    "members": "Members",
    "audit": "Audit log",
    "webhooks": "Webhooks",
}


def scope_groups(workspace: Workspace, scopes: Iterable[str] | None = None) -> list[ScopeGroup]:
    """Return scopes grouped by resource, what programs need most first; without ``scopes`` all that a key can have."""
    own = {scope.name: scope.meaning for scope in custom_scopes.of_workspace(workspace)}
    meanings = {**{scope.value: meaning for scope, meaning in SCOPE_MEANINGS.items()}, **own}
    groups: dict[str, ScopeGroup] = {}
    for scope in sorted([*Scope, *own] if scopes is None else scopes, key=_usual_order):
        resource = scope.partition(":")[0]
        title = _RESOURCE_TITLES.get(resource, resource.capitalize())
        group = groups.setdefault(title, ScopeGroup(resource, title, []))
        meaning = meanings.get(scope, "No longer defined in this workspace.")
        group.scopes.append(ScopeChoice(str(scope), meaning, custom_scopes.publishable(scope)))
    return list(groups.values())


def _usual_order(scope: str) -> tuple[int, bool, str]:
    titles = list(dict.fromkeys(_RESOURCE_TITLES.values()))
    resource, _, action = scope.partition(":")
    title = _RESOURCE_TITLES.get(resource, "")
    return (titles.index(title) if title else len(titles), action != "read", scope)
