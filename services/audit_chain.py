"""The chain of a workspace's audit log: how an entry is bound to all before it, and where a chain breaks.

Each entry carries a MAC over itself and the MAC of the entry before, under a key that is derived from the portal's
signing key and so is not in the database: whoever can only write to the tables cannot make an entry, nor chain the rest
anew. ``audit_head`` keeps, under a MAC as well, which entry is the last, so that what is cut off at the end shows.

Entries of versions that chained by a plain hash (``hash_version`` 1) are bound anew when the database is upgraded.
Later ones are broken, since anybody could have made them, until an operator runs ``audit seal``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, insert, select, update
from sqlalchemy.orm import scoped_session

from models import AuditEvent, AuditHead, Workspace
from services.parts import parts

START = bytes(32)
PLAIN, KEYED = 1, 2
_AT_ONCE = 500

Source = Connection | scoped_session[Any]

_entries: Table = AuditEvent.__table__  # type: ignore[assignment]
_heads: Table = AuditHead.__table__  # type: ignore[assignment]
# What an entry tells, in the order in which it is bound. A migration may run this long before a later column is there.
_TOLD = (
    "workspace_id",
    "number",
    "at",
    "actor_kind",
    "actor_id",
    "actor_name",
    "action",
    "object_id",
    "object_name",
    "details",
    "address",
    "client",
)
_COLUMNS = [_entries.c[name] for name in ("id", *_TOLD, "hash", "hash_version")]


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a chain holds: the number of the last good entry, and that of the first broken one, if there is one."""

    number: int
    broken: int | None


def hash_of(before: bytes, entry: Any) -> bytes:
    """Return what binds an entry to the one before it, by the entry's own version. Raises ValueError for no version."""
    told = [getattr(entry, name) for name in _TOLD]
    told[2] = entry.at.isoformat()
    text = json.dumps(told, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    if entry.hash_version == PLAIN:
        return hashlib.sha256(before + text.encode()).digest()
    if entry.hash_version == KEYED:
        return parts().audit_digests.digest(f"entry {before.hex()} {text}")
    raise ValueError("no such version of the chain")


def head_mac(workspace_id: str, number: int, last_hash: bytes) -> bytes:
    """Return what shows that the entry with this number and hash is the workspace's last."""
    return parts().audit_digests.digest(f"head {workspace_id} {number} {last_hash.hex()}")


def verify(source: Source, workspace_id: str) -> Verified:
    """Read a whole chain, a part at a time, and tell how far it holds.

    An entry is broken when it is not as it was written, is missing, or was put in between.
    """
    head = _head(source, workspace_id)
    at_head, last = START, 0
    for entry in _holding(source, workspace_id):
        if isinstance(entry, _Broken):
            return Verified(last, entry.number)
        if entry.hash_version != KEYED:
            return Verified(last, entry.number)
        last = entry.number
        if head is not None and last == head.number:
            at_head = entry.hash
    return Verified(last, _break_at_end(source, workspace_id, head, last, at_head))


def _break_at_end(source: Source, workspace_id: str, head: Any, last: int, at_head: bytes) -> int | None:
    """Tell which entry is missing after the last, or does not belong there, by the head as it was before the walk."""
    if head is None or head.number > last:
        return last + 1
    if not hmac.compare_digest(head.mac, head_mac(workspace_id, head.number, at_head)):
        return last + 1
    if head.number < last:
        # Entries may have been added meanwhile, and the head with them.
        now = _head(source, workspace_id)
        if now is None or now.number < last:
            return int(head.number) + 1
    return None


def begun_with_our_key(source: Source, most: int) -> list[bool]:
    """Tell of so many of the oldest workspaces whether the first entry of each was bound under the signing key of now.

    No later entry changes it, so it tells the key that was there when the workspace was made.
    """
    oldest = select(Workspace.id).order_by(Workspace.created_at, Workspace.id).limit(most)
    first = _entries.c.workspace_id.in_(oldest), _entries.c.number == 1, _entries.c.hash_version == KEYED
    return [_is_bound(START, entry) for entry in source.execute(select(*_COLUMNS).where(*first))]


def seal(source: Connection, *, anew: bool = False) -> list[str]:
    """Bind the entries of all workspaces by MAC, as far as their chains hold, and write their heads.

    To be done once, after an upgrade from a version with plain hashes. With ``anew`` every entry that is there is bound
    as it stands, whether it held or not: for a restore under another signing key. Returns the ids of the workspaces
    whose chain does not hold. Commits nothing.
    """
    ids = list(source.scalars(select(_entries.c.workspace_id).distinct()))
    for workspace_id in ids:
        _seal_one(source, workspace_id, anew=anew)
    return [workspace_id for workspace_id in ids if verify(source, workspace_id).broken is not None]


def _seal_one(source: Connection, workspace_id: str, *, anew: bool) -> None:
    head = _head(source, workspace_id)
    old, new, last = START, START, 0
    for entry in _in_parts(source, workspace_id):
        if not anew and (entry.number != last + 1 or not _is_bound(old, entry)):
            return
        bound = {**entry._mapping, "hash_version": KEYED}
        bound["hash"] = hash_of(new, _Entry(bound))
        changed = {"hash": bound["hash"], "hash_version": KEYED}
        source.execute(update(_entries).where(_entries.c.id == entry.id).values(changed))
        old, new, last = entry.hash, bound["hash"], entry.number
    if anew or head is None or head.number <= last:
        source.execute(delete(_heads).where(_heads.c.workspace_id == workspace_id))
        mac = head_mac(workspace_id, last, new)
        source.execute(insert(_heads).values(workspace_id=workspace_id, number=last, mac=mac))


class _Entry:
    """An entry as it is going to be."""

    def __init__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)


@dataclass(frozen=True, slots=True)
class _Broken:
    number: int


def _holding(source: Source, workspace_id: str) -> Iterator[Row[Any] | _Broken]:
    """Yield the entries of a chain as long as it holds, whatever their version; at the break, its number."""
    before, expected = START, 1
    for entry in _all(source, workspace_id):
        if entry.number != expected:
            yield _Broken(min(entry.number, expected))
            return
        if not _is_bound(before, entry):
            yield _Broken(expected)
            return
        yield entry
        before, expected = entry.hash, expected + 1


def _is_bound(before: bytes, entry: Row[Any]) -> bool:
    try:
        return hmac.compare_digest(hash_of(before, entry), entry.hash)
    except (ValueError, TypeError, AttributeError):
        # A version that there is not, or a value that is none of its column's.
        return False


def _all(source: Source, workspace_id: str) -> Iterator[Row[Any]]:
    """Yield every entry in the order of the numbers, some at a time, in one statement and so of one moment."""
    query = select(*_COLUMNS).where(_entries.c.workspace_id == workspace_id).order_by(_entries.c.number, _entries.c.id)
    result = source.execute(query, execution_options={"yield_per": _AT_ONCE})
    try:
        yield from result
    finally:
        result.close()


def _in_parts(source: Connection, workspace_id: str) -> Iterator[Row[Any]]:
    """Yield every entry in the order of the numbers, with no statement open while it is changed."""
    query = select(*_COLUMNS).where(_entries.c.workspace_id == workspace_id).order_by(_entries.c.number).limit(_AT_ONCE)
    found = source.execute(query).all()
    while found:
        yield from found
        found = source.execute(query.where(_entries.c.number > found[-1].number)).all()


def _head(source: Source, workspace_id: str) -> Any:
    query = select(_heads.c.number, _heads.c.mac).where(_heads.c.workspace_id == workspace_id)
    return source.execute(query).first()
