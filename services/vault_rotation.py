"""Changing the master key while the portal serves: a new key in front, every row sealed anew, the old ones dropped.

Each row is sealed anew in a small transaction and only if it still holds the record that was opened, so that nothing
saved meanwhile is lost. What was done stays done: an interrupted rotation is finished by running it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import func, select, update

from extensions import db
from models import ProviderKey, Workspace
from models.base import transaction
from services import provider_keys, sealing
from services.errors import InvalidRequest
from services.parts import parts
from services.provider_keys import CANNOT_DECRYPT, Sealed
from services.vault import CannotDecrypt, sealed_with

_ROWS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Row:
    """A sealed provider key with the words that name it to the operator."""

    sealed: Sealed
    workspace: str
    provider: str

    def opens(self) -> bool:
        try:
            parts().vault.open(self.sealed.record, self.sealed.place)
        except CannotDecrypt:
            return False
        return True


@dataclass(slots=True)
class Tally:
    """How far a rotation is: ``current`` rows were sealed with the newest key already."""

    total: int
    resealed: int = 0
    current: int = 0
    unreadable: list[Row] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return self.resealed + self.current + len(self.unreadable)


def add_key() -> str:
    """Put a new master key in front of the ring's file and return its public name.

    Every process of this instance folder seals with it from its next seal on. Raises InvalidRequest when the keys come
    from a setting.
    """
    with transaction():
        sealing.take_turn()
        file = parts().vault.file
        if file is None:
            raise InvalidRequest(
                "The master keys come from a setting. Put the new one in front of the others there, on every node; "
                "docs/vault.md tells the order."
            )
        file.add_new()
        parts().vault.refresh()
        return parts().vault.active_key_id


def reseal_all(progress: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Seal every row with the newest key. ``progress`` is told after every few rows."""
    tally = Tally(total=db.session.scalar(select(func.count()).select_from(ProviderKey)) or 0)
    after = ""
    while found := _reseal_next(after, tally):
        after = found[-1].sealed.row_id
        progress(tally)
    return tally


def forget_old_keys() -> int:
    """Drop every master key but the newest from the ring's file; return how many.

    Raises InvalidRequest while a row needs one of them, or when the keys come from a setting.
    """
    with transaction():
        sealing.take_turn()
        vault = parts().vault
        if vault.file is None:
            raise InvalidRequest("The master keys come from a setting. Remove the old ones there, on every node.")
        needed = sum(sealed_with(row.sealed.record) != vault.active_key_id and row.opens() for row in all_rows())
        if needed:
            raise InvalidRequest(f"{needed} provider keys are still sealed with an old key. Run `vault rotate` first.")
        dropped = len(vault.file.read()) - 1
        if dropped:
            vault.file.keep_first()
            vault.refresh()
        return dropped


def all_rows() -> Iterator[Row]:
    """Yield every sealed row."""
    after = ""
    while found := _rows_after(after):
        yield from found
        after = found[-1].sealed.row_id


def rows_by_key() -> Counter[str]:
    """Return how many rows each master key has sealed, by its public name."""
    return Counter(sealed_with(row.sealed.record) for row in all_rows())


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """A master key by its public name: "seals" new records, only "opens" old ones, or is "missing" for ``rows``."""

    name: str
    role: str
    seals: int
    rows: int


def standings() -> list[KeyStanding]:
    """Return every master key of the ring, the one that seals first, then those that rows need and nobody has."""
    rows, ring = rows_by_key(), parts().vault.ring
    return [
        KeyStanding(
            name=name or "?",
            role="seals" if name == ring[0] else "opens" if name in ring else "missing",
            seals=sealing.seals_of(name),
            rows=rows[name],
        )
        for name in [*ring, *sorted(set(rows) - set(ring))]
    ]


def _reseal_next(after: str, tally: Tally) -> list[Row]:
    """Look at the next few rows and seal anew what is not current. Nothing is counted unless it is committed."""
    resealed, unreadable = 0, []
    with transaction():
        sealing.take_turn()
        found = _rows_after(after)
        for row in found:
            if not row.opens():
                unreadable.append(row)
            elif sealed_with(row.sealed.record) != parts().vault.active_key_id:
                resealed += _reseal(row)
    for row in unreadable:
        provider_keys.note_outcome(row.sealed.workspace_id, row.sealed, CANNOT_DECRYPT)
    tally.resealed += resealed
    tally.unreadable += unreadable
    tally.current += len(found) - resealed - len(unreadable)
    return found


def _reseal(row: Row) -> bool:
    """Seal a row anew; tell whether it still was as it was read. One that was not has been sealed meanwhile."""
    record, place = row.sealed.record, row.sealed.place
    renewed = sealing.seal(parts().vault.open(record, place), place)
    done = db.session.execute(
        update(ProviderKey)
        .where(ProviderKey.id == row.sealed.row_id, ProviderKey.sealed == record)
        .values(sealed=renewed)
        .execution_options(synchronize_session=False)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def _rows_after(row_id: str) -> list[Row]:
    query = (
        select(
            ProviderKey.id,
            ProviderKey.workspace_id,
            ProviderKey.provider,
            ProviderKey.sealed,
            ProviderKey.state,
            Workspace.slug,
        )
        .join(Workspace, Workspace.id == ProviderKey.workspace_id)
        .where(ProviderKey.id > row_id)
        .order_by(ProviderKey.id)
        .limit(_ROWS_AT_ONCE)
    )
    return [_row(*found) for found in db.session.execute(query)]


def _row(row_id: str, workspace_id: str, provider: str, record: str, state: str, slug: str) -> Row:
    place = provider_keys.place_of(workspace_id, provider, row_id)
    return Row(Sealed(record, place, row_id, state, workspace_id), slug, provider)
