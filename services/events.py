"""Events: what a workspace's webhooks can be told of. An event is a row of the act's own transaction.

Most acts are in the audit log, so most events come from its entries (``note``); what the portal finds by itself is
added by ``add``. Nothing is written where no endpoint wants it. No event holds a key, a secret or a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from extensions import db
from models import ApiKey, AuditEvent, WebhookEndpoint, WebhookEvent
from models.base import delete_some, new_id, now, transaction

KEPT = timedelta(days=30)

# Every kind of event with what it tells.
KINDS = {
    "key.created": "An API key was created.",
    "key.updated": "An API key’s name, expiry or restrictions were changed.",
    "key.rotated": "An API key has a new secret.",
    "key.rotation_extended": "The previous secret of an API key was given another end.",
    "key.rotation_finished": "The previous secret of an API key was ended by hand.",
    "key.disabled": "An API key was disabled.",
    "key.enabled": "An API key was enabled.",
    "key.deleted": "An API key was deleted.",
    "key.found": "Somebody who had an API key ended it.",
    "key.expiring": "An API key expires in 30, 7 or 1 days.",
    "key.expired": "An API key has expired.",
    "key.rotation_due": "The secret of an API key is 90 days old.",
    "key.used_from_new_address": "An API key was used from an address for the first time.",
    "plan.changed": "The workspace’s plan or its rate limit was changed.",
    "spending_limit.changed": "The workspace’s spending limits were changed.",
    "spending.threshold_reached": "80 or 100\u2009% of a spending limit is used.",
    "rate_limit.reached": "Calls were refused because of the rate limit, told once a day.",
    "provider_key.added": "A provider key was added.",
    "provider_key.updated": "A provider key was replaced.",
    "provider_key.deleted": "A provider key was deleted.",
    "provider_key.state_changed": "A provider refuses a provider key, or accepts it again.",
    "member.added": "A person became a member.",
    "member.role_changed": "A member has another role.",
    "member.removed": "A person is no longer a member.",
}
# Sent to one endpoint on request, whatever it wants.
TEST = "webhook.test"


@dataclass(frozen=True, slots=True)
class _Source:
    """The event that comes from an audit entry: what the object is called, and which of the details go out."""

    kind: str
    thing: str
    details: tuple[str, ...] = ()


_KEY_FACTS = ("kind", "environment", "scopes")
_FROM_AUDIT = {
    "key:create": _Source("key.created", "key", _KEY_FACTS),
    "key:change": _Source("key.updated", "key", ("name", "expires_at")),
    "key:rotate": _Source("key.rotated", "key", ("previous_until",)),
    "key:extend_rotation": _Source("key.rotation_extended", "key", ("previous_until",)),
    "key:finish_rotation": _Source("key.rotation_finished", "key"),
    "key:disable": _Source("key.disabled", "key"),
    "key:enable": _Source("key.enabled", "key"),
    "key:delete": _Source("key.deleted", "key"),
    "key:found": _Source("key.found", "key", ("ended", "mask")),
    "key:new_address": _Source("key.used_from_new_address", "key", ("address",)),
    "plan:change": _Source("plan.changed", "workspace", ("from", "to", "requests_per_minute")),
    "spending:limit": _Source(
        "spending_limit.changed", "workspace", ("daily_limit_usd", "monthly_limit_usd", "allow_unknown_price")
    ),
    "provider_key:add": _Source("provider_key.added", "provider_key"),
    "provider_key:replace": _Source("provider_key.updated", "provider_key"),
    "provider_key:delete": _Source("provider_key.deleted", "provider_key"),
    "member:add": _Source("member.added", "member", ("role",)),
    "member:change_role": _Source("member.role_changed", "member", ("from", "to")),
    "member:remove": _Source("member.removed", "member"),
    "member:leave": _Source("member.removed", "member"),
}


def note(entry: AuditEvent) -> None:
    """Add the event that an audit entry stands for, if any endpoint wants it. Joins the act's transaction."""
    source = _FROM_AUDIT.get(entry.action)
    if source is None or not wanted(entry.workspace_id, source.kind):
        return
    thing: dict[str, Any] = {"id": entry.object_id, "name": entry.object_name}
    if source.thing == "key" and entry.object_id is not None:
        key = db.session.get(ApiKey, entry.object_id)
        thing["masked"] = key.mask if key else None
    details = {name: entry.details[name] for name in source.details if name in entry.details}
    actor = {"kind": entry.actor_kind, "id": entry.actor_id, "name": entry.actor_name}
    _add(entry.workspace_id, source.kind, {"actor": actor, source.thing: thing, **details})


def add(workspace_id: str, kind: str, data: Mapping[str, Any]) -> None:
    """Add an event that no audit entry stands for, if any endpoint wants it. Joins the act's transaction."""
    if wanted(workspace_id, kind):
        _add(workspace_id, kind, data)


def wanted(workspace_id: str, kind: str) -> bool:
    """Tell whether an endpoint of the workspace is to be told of this kind."""
    query = select(WebhookEndpoint.events).where(
        WebhookEndpoint.workspace_id == workspace_id, WebhookEndpoint.disabled_at.is_(None)
    )
    return any(wants(kinds, kind) for kinds in db.session.scalars(query))


def wants(kinds: list[str], kind: str) -> bool:
    """Tell whether somebody who asked for these kinds wants this one; who names none wants all."""
    return not kinds or kind in kinds


def make_test(workspace_id: str, endpoint_id: str) -> WebhookEvent:
    """Return a new event by which an endpoint can be tried; it goes to no other."""
    event = _event(workspace_id, TEST, {"webhook": {"id": endpoint_id}})
    event.queued_at = event.created_at
    return event


def payload(event: WebhookEvent) -> dict[str, Any]:
    """Return what is sent: ``type``, ``timestamp`` and ``data``, as Standard Webhooks asks for."""
    return {"type": event.kind, "timestamp": _iso(event.created_at), "data": event.data}


def forget_old() -> bool:
    """Delete events of long ago with their deliveries, some at a time; tell whether there may be more."""
    return delete_some(WebhookEvent, WebhookEvent.created_at < now() - KEPT)


def _add(workspace_id: str, kind: str, data: Mapping[str, Any]) -> None:
    with transaction() as session:
        session.add(_event(workspace_id, kind, data))
        session.flush()


def _event(workspace_id: str, kind: str, data: Mapping[str, Any]) -> WebhookEvent:
    return WebhookEvent(
        id=new_id("evt"),
        workspace_id=workspace_id,
        kind=kind,
        data={"workspace_id": workspace_id, **data},
        created_at=now(),
        queued_at=None,
    )


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
