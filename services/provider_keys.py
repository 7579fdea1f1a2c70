"""Provider keys: the customer's own keys at OpenAI and OpenRouter, tested, then kept sealed."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy import bindparam, select, update

from extensions import db
from models import ProviderKey, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from models.quick import DatabaseUnavailable, Prepared
from services import audit
from services.actor import Actor
from services.errors import DatabaseAway, InvalidInput, PortalError, ServiceUnavailable
from services.gateway.provider_answers import (
    CANNOT_DECRYPT,
    INVALID,
    NO_CREDIT,
    RATE_LIMITED,
    RESTRICTED,
    UNREACHABLE,
    UNVERIFIED,
    VALID,
    without_key,
    without_key_like,
)
from services.gateway.providers import Provider
from services.gateway.upstream import Unreachable
from services.parts import parts
from services.secret import Secret
from services.vault import CannotDecrypt

__all__ = [
    "CANNOT_DECRYPT",
    "INVALID",
    "NO_CREDIT",
    "RATE_LIMITED",
    "RESTRICTED",
    "UNREACHABLE",
    "UNVERIFIED",
    "VALID",
    "ProviderUnreachable",
    "Sealed",
    "connected",
    "note_outcome",
    "of_workspace",
    "save",
    "unseal",
]

_CHECK_SECONDS = 10.0
_LONGEST_KEY = 500
_log = structlog.get_logger("provider_keys")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed provider key, the place it is bound to, its row, and the state it was in when it was read."""

    record: str
    place: str
    row_id: str
    state: str
    workspace_id: str


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
    """Return the workspace's sealed keys by provider name, on the hot path. Raises DatabaseAway.

    Keys in a bad state are among them: a state is what was seen last, and only a call shows that it has passed.
    """
    try:
        rows = parts().quick.all(_CONNECTED, {"workspace": workspace_id})
    except DatabaseUnavailable as error:
        raise DatabaseAway from error
    known = parts().providers
    return {
        name: Sealed(record, _place(workspace_id, name, row_id), row_id, state, workspace_id)
        for row_id, name, record, state in rows
        if name in known
    }


def unseal(sealed: Sealed) -> Secret:
    """Open a provider key for the one request it is needed for.

    Raises ServiceUnavailable when it cannot be opened, and notes that.
    """
    try:
        return parts().vault.open(sealed.record, sealed.place)
    except CannotDecrypt as error:
        note_outcome(sealed.workspace_id, sealed, CANNOT_DECRYPT)
        raise ServiceUnavailable(
            "The provider key of this workspace cannot be decrypted. Its owner must save it again.",
            code="provider_key_unreadable",
        ) from error


def note_outcome(workspace_id: str, sealed: Sealed, state: str, words: str | None = None) -> None:
    """Keep the state that a call has just seen the key in, with the provider's words; on the hot path.

    Writes only when the state is another than before, and only to the row that still holds this very record: what
    became of an old key says nothing of the one that replaced it. The words lose every part of the key. Never raises:
    the caller's answer does not depend on it.
    """
    if state == sealed.state:
        return
    values = {
        "row": sealed.row_id,
        "workspace": workspace_id,
        "record": sealed.record,
        "seen_state": state,
        "seen_words": _cleaned(words, sealed) or None,
        "seen_at": now(),
    }
    try:
        parts().quick.run(_NOTE, values)
    except DatabaseUnavailable:
        _log.warning("state of a provider key not kept", provider_key=sealed.row_id, state=state)


def _cleaned(words: str | None, sealed: Sealed) -> str:
    if not words:
        return ""
    try:
        return without_key(words, parts().vault.open(sealed.record, sealed.place))
    except CannotDecrypt:
        return without_key_like(words)


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


_columns = ProviderKey.__table__.c
_CONNECTED = Prepared(
    select(ProviderKey.id, ProviderKey.provider, ProviderKey.sealed, ProviderKey.state).where(
        ProviderKey.workspace_id == bindparam("workspace", type_=_columns.workspace_id.type)
    )
)
_NOTE = Prepared(
    update(ProviderKey)
    .where(
        ProviderKey.id == bindparam("row", type_=_columns.id.type),
        ProviderKey.workspace_id == bindparam("workspace", type_=_columns.workspace_id.type),
        ProviderKey.sealed == bindparam("record", type_=_columns.sealed.type),
        ProviderKey.state != bindparam("seen_state", type_=_columns.state.type),
    )
    .values(
        state=bindparam("seen_state", type_=_columns.state.type),
        state_words=bindparam("seen_words", type_=_columns.state_words.type),
        state_seen_at=bindparam("seen_at", type_=_columns.state_seen_at.type),
    )
)
