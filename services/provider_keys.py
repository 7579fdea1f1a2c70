"""Provider keys: the customer's own keys at OpenAI and OpenRouter, tested, then kept sealed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from extensions import db
from models import ProviderKey, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from models.quick import DatabaseUnavailable, Prepared
from services import audit
from services.actor import Actor
from services.errors import DatabaseAway, InvalidInput, PortalError, ServiceUnavailable
from services.gateway.providers import Provider
from services.gateway.upstream import Unreachable
from services.parts import parts
from services.secret import Secret
from services.vault import CannotDecrypt

VALID, RESTRICTED, UNVERIFIED = "valid", "restricted", "unverified"
_CHECK_SECONDS = 10.0
_LONGEST_KEY = 500


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed provider key and the place it is bound to."""

    record: str
    place: str


class ProviderUnreachable(PortalError):
    """The key is neither right nor wrong for now; it may be saved without a check."""

    status, type, code = 503, "provider_error", "provider_unreachable"


def save(workspace: Workspace, provider_name: str, key: Secret, *, actor: Actor, check: bool = True) -> ProviderKey:
    """Test a key at its provider, then keep it sealed in place of an earlier one.

    Raises InvalidInput for a key the provider refuses, ProviderUnreachable when it cannot be asked; the earlier key
    then stays. ``check=False`` keeps the key unverified.
    """
    provider = _provider(provider_name)
    key = Secret(key.reveal().strip())
    _check_form(key)
    state = _state_of(provider, key) if check else UNVERIFIED
    with transaction() as session:
        one_at_a_time(f"provider_key:{workspace.id}")
        row = _find(workspace, provider_name)
        replaced = row is not None
        if row is None:
            row = ProviderKey(id=new_id("pvk"), workspace_id=workspace.id, provider=provider_name, created_at=now())
            session.add(row)
        row.sealed = parts().vault.seal(key, _place(workspace.id, provider_name, row.id))
        row.state = state
        row.checked_at = now() if check else None
        row.updated_at = now()
        row.created_by_name = actor.name
        session.flush()
        action = "provider_key:replace" if replaced else "provider_key:add"
        audit.record(workspace.id, actor, action, object_id=row.id, object_name=provider.title)
    return row


def of_workspace(workspace: Workspace) -> list[ProviderKey]:
    """The workspace's provider keys, by provider."""
    query = select(ProviderKey).where(ProviderKey.workspace_id == workspace.id)
    return list(db.session.scalars(query.order_by(ProviderKey.provider)))


def connected(workspace_id: str) -> dict[str, Sealed]:
    """Return the workspace's sealed keys by provider name, on the hot path. Raises DatabaseAway."""
    try:
        rows = parts().quick.all(_CONNECTED, {"workspace": workspace_id})
    except DatabaseUnavailable as error:
        raise DatabaseAway from error
    known = parts().providers
    return {name: Sealed(record, _place(workspace_id, name, row_id)) for row_id, name, record in rows if name in known}


def unseal(sealed: Sealed) -> Secret:
    """Open a provider key for the one request it is needed for. Raises ServiceUnavailable when it cannot be opened."""
    try:
        return parts().vault.open(sealed.record, sealed.place)
    except CannotDecrypt as error:
        raise ServiceUnavailable(
            "The provider key of this workspace cannot be decrypted. Its owner must save it again.",
            code="provider_key_unreadable",
        ) from error


def some_open() -> bool:
    """Tell whether one of the newest provider keys opens, or there is none."""
    vault = parts().vault
    newest = db.session.scalars(select(ProviderKey).order_by(ProviderKey.updated_at.desc()).limit(5)).all()
    for row in newest:
        with contextlib.suppress(CannotDecrypt):
            vault.open(row.sealed, _place(row.workspace_id, row.provider, row.id))
            return True
    return not newest


def unreadable_in(connection: Connection) -> int:
    """Return how many provider keys of a database cannot be opened here."""
    query = select(ProviderKey.workspace_id, ProviderKey.provider, ProviderKey.id, ProviderKey.sealed)
    unreadable = 0
    for workspace_id, provider_name, row_id, record in connection.execute(query):
        try:
            parts().vault.open(record, _place(workspace_id, provider_name, row_id))
        except CannotDecrypt:
            unreadable += 1
    return unreadable


def _provider(name: str) -> Provider:
    known = parts().providers
    if name not in known:
        raise InvalidInput({"provider": f"There is no provider “{name}”. There are: {', '.join(known)}"})
    return known[name]


def _check_form(key: Secret) -> None:
    value = key.reveal()
    if not value:
        raise InvalidInput({"key": "Paste a key first"})
    if len(value) > _LONGEST_KEY or not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidInput({"key": "This is not a provider key. Check that you copied exactly the key"})


def _state_of(provider: Provider, key: Secret) -> str:
    """Ask the provider about the key. Raises InvalidInput or ProviderUnreachable."""
    try:
        answer = parts().upstream.send("GET", provider.url(provider.check_path), key, read_seconds=_CHECK_SECONDS)
        status = answer.status
        answer.close()
    except Unreachable as error:
        raise ProviderUnreachable(
            f"We could not reach {provider.title} ({error.reason}). The key is neither right nor wrong for now."
        ) from error
    if status == 401:
        raise InvalidInput(
            {
                "key": f"{provider.title} does not accept this key. It was not saved. Check that you copied all of it "
                "and that it has not been revoked"
            }
        )
    if status == 402:
        raise InvalidInput(
            {
                "key": f"This {provider.title} key works, but the account has no credit. It was not saved. "
                f"Add credit at {provider.title}, then save again"
            }
        )
    if status >= 500 or status == 429:
        raise ProviderUnreachable(
            f"{provider.title} could not check the key (status {status}). It is neither right nor wrong for now."
        )
    if status == 403:
        return RESTRICTED
    return VALID if status == 200 else UNVERIFIED


def _find(workspace: Workspace, provider_name: str) -> ProviderKey | None:
    query = select(ProviderKey).where(ProviderKey.workspace_id == workspace.id, ProviderKey.provider == provider_name)
    return db.session.scalars(query).first()


def _place(workspace_id: str, provider_name: str, row_id: str) -> str:
    return f"provider_key/{workspace_id}/{provider_name}/{row_id}"


_CONNECTED = Prepared(
    select(ProviderKey.id, ProviderKey.provider, ProviderKey.sealed).where(
        ProviderKey.workspace_id == bindparam("workspace", type_=ProviderKey.workspace_id.type)
    )
)
