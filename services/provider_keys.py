"""Provider keys: the customer's own keys at OpenAI and OpenRouter, tested, then kept sealed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog
from sqlalchemy import String, bindparam, case, func, literal_column, select, update

from extensions import db
from models import ProviderKey, UsageRecord, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from models.quick import DatabaseUnavailable, Prepared
from services import audit, idempotency, provider_check, sealing
from services.actor import Actor
from services.errors import DatabaseAway, InvalidInput, NotFound, PortalError, ServiceUnavailable
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
from services.parts import parts
from services.provider_check import Finding
from services.secret import Secret
from services.vault import CannotDecrypt

# The states are part of what this module offers.
__all__ = [
    "CANNOT_DECRYPT",
    "INVALID",
    "LABEL_LENGTH",
    "NO_CREDIT",
    "NO_SPEND",
    "RATE_LIMITED",
    "RESTRICTED",
    "UNREACHABLE",
    "UNVERIFIED",
    "VALID",
    "ProviderKeyRefused",
    "ProviderUnreachable",
    "Sealed",
    "Spend",
    "check_saved",
    "connected",
    "delete",
    "find",
    "find_out",
    "get",
    "get_provider",
    "keep_finding",
    "note_outcome",
    "of_workspace",
    "place_of",
    "save",
    "spend_this_month",
    "title_of",
    "unseal",
]

LABEL_LENGTH = 60
LONGEST_KEY = 500
_RETRY_SECONDS = 5
_log = structlog.get_logger("provider_keys")


class Sealed(NamedTuple):
    """A sealed provider key, the place it is bound to, its row, and the state it was in when it was read."""

    record: str
    place: str
    row_id: str
    state: str
    workspace_id: str


@dataclass(frozen=True, slots=True)
class Spend:
    """What calls cost, in nano-dollars, beside the calls whose cost is not known."""

    nano_usd: int
    unknown: int


NO_SPEND = Spend(0, 0)


class ProviderKeyRefused(InvalidInput):
    """The provider does not accept the key, or its account has no credit; the code says which."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__({"key": sentence})
        self.code = code


class ProviderUnreachable(PortalError):
    """The key is neither right nor wrong for now; it may be saved without a check. ``reason`` is a half-sentence."""

    status, type, code = 503, "provider_error", "provider_unreachable"

    def __init__(self, title: str, reason: str) -> None:
        self.title = title
        self.reason = reason
        super().__init__(
            f"We could not reach {title} ({reason}). The key is neither right nor wrong for now.",
            retry_after=_RETRY_SECONDS,
        )


def save(
    workspace: Workspace,
    provider_name: str,
    key: Secret,
    *,
    actor: Actor,
    label: str | None = None,
    check: bool = True,
    one_time_number: str | None = None,
) -> ProviderKey:
    """Test a key at its provider, then keep it sealed in place of an earlier one, which works until then.

    Raises ProviderKeyRefused for a key that the provider refuses or has no credit for, ProviderUnreachable when it
    cannot be asked, InvalidInput for what is no key or too long a label; the earlier key then stays. ``check=False``
    keeps the key unverified. Without a ``label`` the earlier one stays. Raises AlreadyDone when the request with this
    number was carried out.
    """
    provider = get_provider(provider_name)
    key = Secret(key.reveal().strip())
    _check_input(key, label)
    finding = _found_good(provider, key) if check else Finding(UNVERIFIED)
    with transaction() as session:
        one_at_a_time(f"provider_key:{workspace.id}")
        idempotency.refuse_repetition(workspace, one_time_number)
        row, at = find(workspace, provider_name), now()
        action = "provider_key:replace" if row else "provider_key:add"
        row_id = row.id if row else new_id("pvk")
        record = sealing.seal(key, place_of(workspace.id, provider_name, row_id))
        if row is None:
            row = ProviderKey(id=row_id, workspace_id=workspace.id, provider=provider_name, created_at=at, label="")
        else:
            # After the vault's turn, as a rotation does. An outcome of the old key must not come in between.
            session.refresh(row, with_for_update=True)
        row.sealed, row.updated_at, row.created_by_name = record, at, actor.name
        row.label = row.label if label is None else label.strip()
        row.checked_at = at if check else None
        _take_over(row, finding, at)
        session.add(row)
        session.flush()
        audit.record(workspace.id, actor, action, object_id=row.id, object_name=provider.title)
        idempotency.remember(workspace, one_time_number, row.id)
    return row


def check_saved(workspace: Workspace, provider_name: str) -> ProviderKey:
    """Ask the provider about the key that is kept, and keep what it says.

    A key that was replaced meanwhile is left alone. Raises NotFound, and InvalidInput for a provider that is no longer
    offered.
    """
    row = get(workspace, provider_name)
    provider = get_provider(provider_name)
    record, row_id = row.sealed, row.id
    finding = find_out(provider, record, place_of(workspace.id, provider_name, row_id))
    keep_finding(row_id, record, finding)
    return get(workspace, provider_name)


def find_out(provider: Provider, record: str, place: str) -> Finding:
    """Return what the provider says of a sealed key, ``cannot_decrypt`` if it does not open."""
    try:
        key = parts().vault.open(record, place)
    except CannotDecrypt:
        return Finding(CANNOT_DECRYPT)
    return _asked(provider, key)


def keep_finding(row_id: str, record: str, finding: Finding | None) -> None:
    """Keep what a check found, if the row still holds the record that was checked; None: only that it was checked."""
    with transaction():
        row = db.session.scalars(select(ProviderKey).where(ProviderKey.id == row_id).with_for_update()).first()
        if row is None or row.sealed != record:
            return
        row.checked_at = now()
        if finding is not None:
            _take_over(row, finding, row.checked_at)


def delete(workspace: Workspace, provider_name: str, *, actor: Actor) -> None:
    """Remove a key: the next call has none. Raises NotFound."""
    with transaction() as session:
        one_at_a_time(f"provider_key:{workspace.id}")
        row = get(workspace, provider_name)
        row_id, title = row.id, title_of(row)
        session.delete(row)
        session.flush()
        audit.record(workspace.id, actor, "provider_key:delete", object_id=row_id, object_name=title)


def of_workspace(workspace: Workspace) -> list[ProviderKey]:
    """The workspace's provider keys, by provider."""
    query = select(ProviderKey).where(ProviderKey.workspace_id == workspace.id)
    return list(db.session.scalars(query.order_by(ProviderKey.provider)))


def spend_this_month(workspace: Workspace) -> dict[str, Spend]:
    """Return what answered calls have cost since the UTC month began, by provider."""
    month = now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    answered = (UsageRecord.status < 400) & UsageRecord.ended_at.is_not(None)
    unknown = case((answered & UsageRecord.cost_nano_usd.is_(None), 1), else_=0)
    query = (
        select(UsageRecord.provider, func.sum(func.coalesce(UsageRecord.cost_nano_usd, 0)), func.sum(unknown))
        .where(
            UsageRecord.workspace_id == workspace.id,
            UsageRecord.started_at >= month,
            UsageRecord.provider.is_not(None),
        )
        .group_by(UsageRecord.provider)
    )
    return {name: Spend(int(cost), int(calls)) for name, cost, calls in db.session.execute(query)}


def find(workspace: Workspace, provider_name: str) -> ProviderKey | None:
    """Return the workspace's key at a provider."""
    query = select(ProviderKey).where(ProviderKey.workspace_id == workspace.id, ProviderKey.provider == provider_name)
    return db.session.scalars(query).first()


def get(workspace: Workspace, provider_name: str) -> ProviderKey:
    """Raises NotFound."""
    row = find(workspace, provider_name)
    if row is None:
        raise NotFound
    return row


def title_of(row: ProviderKey) -> str:
    """Return what people call the provider of a key; its plain name when it is no longer offered."""
    known = parts().providers
    return known[row.provider].title if row.provider in known else row.provider


def all_as_text(workspace_id: str) -> str | None:
    """Return the workspace's sealed keys as the gate reads them (ALL_AS_TEXT). Raises DatabaseAway."""
    try:
        found = parts().quick.one(_CONNECTED, {"workspace": workspace_id})
    except DatabaseUnavailable as error:
        raise DatabaseAway from error
    return found[0] if found else None


def connected(workspace_id: str) -> dict[str, Sealed]:
    """Return the workspace's sealed keys by provider name. Raises DatabaseAway.

    Keys in a bad state are among them: a state is what was seen last, and only a call shows that it has passed.
    """
    return connected_in(workspace_id, all_as_text(workspace_id))


def connected_in(workspace_id: str, as_text: str | None) -> dict[str, Sealed]:
    """Return what ``connected`` would, of the text that was read already."""
    if as_text is None:
        return {}
    known, found = parts().providers, {}
    for line in as_text.split("\n"):
        row_id, name, record, state = line.split(" ")
        if name in known:
            found[name] = Sealed(record, place_of(workspace_id, name, row_id), row_id, state, workspace_id)
    return found


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


def some_open() -> bool:
    """Tell whether one of the newest provider keys opens, or there is none."""
    vault = parts().vault
    newest = db.session.scalars(select(ProviderKey).order_by(ProviderKey.updated_at.desc()).limit(5)).all()
    for row in newest:
        with contextlib.suppress(CannotDecrypt):
            vault.open(row.sealed, place_of(row.workspace_id, row.provider, row.id))
            return True
    return not newest


def get_provider(name: str) -> Provider:
    """Return a provider that is offered. Raises InvalidInput that names them."""
    known = parts().providers
    if name not in known:
        raise InvalidInput({"provider": f"There is no provider “{name[:40]}”. There are: {', '.join(known)}"})
    return known[name]


def _check_input(key: Secret, label: str | None) -> None:
    faults = {"key": _key_fault(key.reveal()), "label": _label_fault((label or "").strip())}
    found = {field: fault for field, fault in faults.items() if fault is not None}
    if found:
        raise InvalidInput(found)


def _key_fault(value: str) -> str | None:
    if not value:
        return "Paste a key first."
    if len(value) > LONGEST_KEY or not value.isascii() or not value.isprintable() or " " in value:
        return "This is not a provider key. Check that you copied exactly the key"
    return None


def _label_fault(label: str) -> str | None:
    if len(label) > LABEL_LENGTH:
        return f"Use at most {LABEL_LENGTH} characters"
    return None if label.isprintable() else "Use printable characters on one line"


def _found_good(provider: Provider, key: Secret) -> Finding:
    """Return what the provider says of a key that can be used. Raises ProviderKeyRefused, ProviderUnreachable."""
    finding = _asked(provider, key)
    if finding.state == INVALID:
        raise ProviderKeyRefused(
            "provider_rejected_key",
            f"{provider.title} does not accept this key. It was not saved. Check that you copied all of it and that "
            "it has not been revoked.",
        )
    if finding.state == NO_CREDIT:
        raise ProviderKeyRefused(
            "provider_out_of_credit",
            f"This {provider.title} key works, but the account has no credit. It was not saved. "
            f"Add credit at {provider.title}, then save again.",
        )
    if finding.state == UNREACHABLE:
        raise ProviderUnreachable(provider.title, finding.words or "")
    return finding


def _asked(provider: Provider, key: Secret) -> Finding:
    # Nobody else should have to wait for the database connection that this would keep meanwhile.
    db.session.rollback()
    return provider_check.check(provider, key, parts().upstream)


def _take_over(row: ProviderKey, finding: Finding, at: datetime) -> None:
    row.state, row.state_words, row.state_seen_at = finding.state, finding.words, at
    row.credit_nano_usd = finding.credit_nano_usd


def place_of(workspace_id: str, provider_name: str, row_id: str) -> str:
    """Return what a sealed key is bound to: in any other row its record does not open."""
    return f"provider_key/{workspace_id}/{provider_name}/{row_id}"


_columns = ProviderKey.__table__.c
_SPACE = literal_column("' '", String())
# All provider keys of a workspace as one text, a line for each with its words, none of which holds a space. So the one
# read that finds an API key finds them too.
ALL_AS_TEXT = (
    select(
        func.aggregate_strings(
            _columns.id + _SPACE + _columns.provider + _SPACE + _columns.sealed + _SPACE + _columns.state, "\n"
        )
    )
    .where(_columns.workspace_id == Workspace.id)
    .correlate(Workspace)
    .scalar_subquery()
)
_CONNECTED = Prepared(
    select(ALL_AS_TEXT)
    .select_from(Workspace)
    .where(Workspace.id == bindparam("workspace", type_=_columns.workspace_id.type))
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
