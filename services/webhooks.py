"""Webhook endpoints: where a workspace wants to be told of events, and the secrets that deliveries are signed with."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, func, or_, select, update

from extensions import db
from models import WebhookDelivery, WebhookEndpoint, WebhookSecret, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit, events, idempotency, sealing
from services.actor import Actor
from services.errors import InvalidInput, NotFound
from services.parts import parts
from services.secret import Secret

MOST_ENDPOINTS = 20
DESCRIPTION_LENGTH = 100
_SECRET_BYTES = 32
# How long the previous secret signs too, unless it ends at once.
OVERLAPS = {"24h": timedelta(hours=24), "now": timedelta(0)}


@dataclass(frozen=True, slots=True)
class Minted:
    """An endpoint with a new signing secret, which is not shown again."""

    endpoint: WebhookEndpoint
    secret: Secret


def create(
    workspace: Workspace,
    *,
    actor: Actor,
    url: str,
    description: str = "",
    kinds: Sequence[str] = (),
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> Minted:
    """Add an endpoint; no kinds mean every kind of event.

    Raises InvalidInput for the fields ``url``, ``description`` and ``events``, AlreadyDone for a repeated number.
    """
    with transaction() as session:
        one_at_a_time(f"webhook:create:{workspace.id}")
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        url, description, kinds = _checked(url, description, kinds)
        if _count(workspace) >= MOST_ENDPOINTS:
            raise InvalidInput({"url": f"A workspace has at most {MOST_ENDPOINTS} endpoints. Delete one first"})
        endpoint = WebhookEndpoint(
            id=new_id("whe"),
            workspace_id=workspace.id,
            url=url,
            description=description,
            events=list(kinds),
            created_by_name=actor.name,
            created_at=now(),
        )
        session.add(endpoint)
        session.flush()
        secret = _add_secret(endpoint)
        idempotency.remember(workspace, one_time_number, endpoint.id, request_digest)
        session.flush()
        _record(endpoint, actor, "webhook:create", {"events": list(kinds)})
    return Minted(endpoint, secret)


def change(
    workspace: Workspace,
    endpoint_id: str,
    *,
    actor: Actor,
    url: str | None = None,
    description: str | None = None,
    kinds: Sequence[str] | None = None,
    disabled: bool | None = None,
) -> WebhookEndpoint:
    """Change what is given. Raises NotFound, and InvalidInput as ``create`` does."""
    with transaction() as session:
        endpoint = _locked(workspace, endpoint_id)
        before = (endpoint.url, endpoint.description, endpoint.events)
        after = _checked(
            endpoint.url if url is None else url,
            endpoint.description if description is None else description,
            endpoint.events if kinds is None else kinds,
        )
        endpoint.url, endpoint.description, endpoint.events = after
        if endpoint.url != before[0]:
            _forget_failures(endpoint)
        session.flush()
        if after != before:
            details = {"address_changed": endpoint.url != before[0], "events": endpoint.events}
            _record(endpoint, actor, "webhook:change", details)
        if disabled is not None:
            _disable(endpoint, actor) if disabled else _enable(endpoint, actor)
    return endpoint


def disable(workspace: Workspace, endpoint_id: str, *, actor: Actor) -> WebhookEndpoint:
    """Send nothing more; what waits is given up, and can be sent again by hand. Raises NotFound."""
    return change(workspace, endpoint_id, actor=actor, disabled=True)


def enable(workspace: Workspace, endpoint_id: str, *, actor: Actor) -> WebhookEndpoint:
    """Send what happens from now on. Raises NotFound."""
    return change(workspace, endpoint_id, actor=actor, disabled=False)


def delete(workspace: Workspace, endpoint_id: str, *, actor: Actor) -> None:
    """Remove an endpoint with its secrets and its log. Raises NotFound."""
    with transaction() as session:
        endpoint = _locked(workspace, endpoint_id)
        _record(endpoint, actor, "webhook:delete")
        session.delete(endpoint)
        session.flush()


def rotate_secret(
    workspace: Workspace,
    endpoint_id: str,
    *,
    actor: Actor,
    overlap: str,
    one_time_number: str | None = None,
    request_digest: bytes | None = None,
) -> Minted:
    """Give an endpoint a new signing secret. With the overlap ``24h`` the present one signs beside it for a day.

    Raises NotFound, InvalidInput for the field ``overlap``, AlreadyDone for a repeated number.
    """
    if overlap not in OVERLAPS:
        raise InvalidInput({"overlap": f"Give one of {', '.join(OVERLAPS)}"})
    with transaction() as session:
        get(workspace, endpoint_id)
        idempotency.refuse_repetition(workspace, one_time_number, request_digest)
        # The vault's turn before the row's, as everywhere.
        sealing.take_turn()
        endpoint = _locked(workspace, endpoint_id)
        for row in list(endpoint.secrets):
            if row.ends_at is not None or not OVERLAPS[overlap]:
                endpoint.secrets.remove(row)
            else:
                row.ends_at = now() + OVERLAPS[overlap]
        secret = _add_secret(endpoint)
        idempotency.remember(workspace, one_time_number, endpoint.id, request_digest)
        session.flush()
        session.expire(endpoint, ["secrets"])
        _record(endpoint, actor, "webhook:rotate_secret", {"overlap": overlap})
    return Minted(endpoint, secret)


def place_of(row_id: str, endpoint_id: str) -> str:
    """Return what a sealed secret is bound to: in any other row its record does not open."""
    return f"webhook/{row_id}/{endpoint_id}"


def signing_secrets(endpoint: WebhookEndpoint) -> list[Secret]:
    """Return the secrets that sign now, the current one first. Raises vault.CannotDecrypt."""
    at = now()
    rows = [row for row in endpoint.secrets if row.ends_at is None or row.ends_at > at]
    rows.sort(key=lambda row: row.ends_at is not None)
    return [parts().vault.open(row.sealed, place_of(row.id, endpoint.id)) for row in rows]


def of_workspace(workspace: Workspace) -> list[WebhookEndpoint]:
    """Every endpoint of the workspace, the newest first."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.workspace_id == workspace.id)
    return list(db.session.scalars(query.order_by(WebhookEndpoint.created_at.desc(), WebhookEndpoint.id.desc())))


def page(workspace: Workspace, *, limit: int, after: str | None = None) -> tuple[list[WebhookEndpoint], bool]:
    """Return endpoints, the newest first, from after the one with that id, and whether more follow. Raises NotFound."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.workspace_id == workspace.id)
    if after is not None:
        last = get(workspace, after)
        same_moment = and_(WebhookEndpoint.created_at == last.created_at, WebhookEndpoint.id < last.id)
        query = query.where(or_(WebhookEndpoint.created_at < last.created_at, same_moment))
    ordered = query.order_by(WebhookEndpoint.created_at.desc(), WebhookEndpoint.id.desc())
    found = list(db.session.scalars(ordered.limit(limit + 1)))
    return found[:limit], len(found) > limit


def get(workspace: Workspace, endpoint_id: str) -> WebhookEndpoint:
    """Return an endpoint of this workspace. Raises NotFound for every other id."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.workspace_id == workspace.id, WebhookEndpoint.id == endpoint_id
    )
    endpoint = db.session.scalars(query).first()
    if endpoint is None:
        raise NotFound
    return endpoint


def give_up(endpoint: WebhookEndpoint, why: str) -> None:
    """Disable an endpoint and end what waits for it, as part of an act that holds its row."""
    endpoint.disabled_at, endpoint.disabled_why = now(), why
    db.session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint.id,
            WebhookDelivery.delivered_at.is_(None),
            WebhookDelivery.failed_at.is_(None),
        )
        .values(failed_at=now())
    )
    db.session.flush()


def _disable(endpoint: WebhookEndpoint, actor: Actor) -> None:
    if endpoint.disabled_at is None:
        give_up(endpoint, "by hand")
        _record(endpoint, actor, "webhook:disable")


def _enable(endpoint: WebhookEndpoint, actor: Actor) -> None:
    if endpoint.disabled_at is not None:
        endpoint.disabled_at = endpoint.disabled_why = None
        _forget_failures(endpoint)
        db.session.flush()
        _record(endpoint, actor, "webhook:enable")


def _forget_failures(endpoint: WebhookEndpoint) -> None:
    endpoint.failing_since, endpoint.failures, endpoint.last_answer = None, 0, None


def _add_secret(endpoint: WebhookEndpoint) -> Secret:
    secret = Secret("whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())
    row = WebhookSecret(id=new_id("whs"), endpoint_id=endpoint.id, created_at=now(), ends_at=None)
    row.sealed = sealing.seal(secret, place_of(row.id, endpoint.id))
    endpoint.secrets.insert(0, row)
    return secret


def _checked(url: str, description: str, kinds: Sequence[str]) -> tuple[str, str, list[str]]:
    faults: dict[str, str] = {}
    try:
        url = parts().outbound.read_url(url)
    except InvalidInput as error:
        faults |= error.fields
    description = description.strip()
    if len(description) > DESCRIPTION_LENGTH:
        faults["description"] = f"Use at most {DESCRIPTION_LENGTH} characters"
    elif not description.isprintable():
        faults["description"] = "Use printable characters on one line"
    unknown = next((kind for kind in kinds if kind not in events.KINDS), None)
    if unknown is not None:
        faults["events"] = f"There is no event “{unknown[:60]}”"
    if faults:
        raise InvalidInput(faults)
    return url, description, [kind for kind in events.KINDS if kind in kinds]


def _locked(workspace: Workspace, endpoint_id: str) -> WebhookEndpoint:
    endpoint = get(workspace, endpoint_id)
    db.session.refresh(endpoint, with_for_update={"key_share": True})
    return endpoint


def _count(workspace: Workspace) -> int:
    query = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.workspace_id == workspace.id)
    return db.session.scalar(query) or 0


def _record(endpoint: WebhookEndpoint, actor: Actor, action: str, details: dict[str, object] | None = None) -> None:
    # The address itself may hold a token in its path; its host says where it leads.
    name = endpoint.description or host_of(endpoint)
    audit.record(endpoint.workspace_id, actor, action, object_id=endpoint.id, object_name=name, details=details)


def host_of(endpoint: WebhookEndpoint) -> str:
    """Return where an endpoint is, without the rest of its address."""
    return endpoint.url.split("/", 3)[2]
