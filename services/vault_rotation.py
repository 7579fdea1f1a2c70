"""Changing the master key while the portal serves: a new key in front, every row sealed anew, the old ones dropped.

Each row is sealed anew in a small transaction and only if it still holds the record that was opened, so that nothing
saved meanwhile is lost. What was done stays done: an interrupted rotation is finished by running it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from models.base import transaction
from services import sealed_columns, sealing
from services.errors import InvalidRequest
from services.parts import parts
from services.sealed_columns import SEALED_COLUMNS, SealedColumn, SealedRow
from services.vault import sealed_with

_ROWS_AT_ONCE = 50


@dataclass(slots=True)
class Tally:
    """How far a rotation is: ``current`` rows were sealed with the newest key already.

    ``unreadable`` has a sentence about each row that cannot be decrypted.
    """

    total: int
    resealed: int = 0
    current: int = 0
    unreadable: list[str] = field(default_factory=list)

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
    tally = Tally(total=count_rows())
    for column in SEALED_COLUMNS:
        after = ""
        while found := _reseal_next(column, after, tally):
            after = found[-1].id
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
        rows = (row for column in SEALED_COLUMNS for row in column.all_rows())
        needed = sum(sealed_with(row.record) != vault.active_key_id and row.opens() for row in rows)
        if needed:
            raise InvalidRequest(f"{needed} secrets are still sealed with an old key. Run `vault rotate` first.")
        dropped = len(vault.file.read()) - 1
        if dropped:
            vault.file.keep_first()
            vault.refresh()
        return dropped


def unreadable() -> list[str]:
    """Return a sentence about each row that cannot be decrypted."""
    return [_told(column, row) for column, row in sealed_columns.unreadable()]


def count_rows() -> int:
    return sum(column.count() for column in SEALED_COLUMNS)


def rows_by_key() -> Counter[str]:
    """Return how many rows each master key has sealed, by its public name."""
    return Counter(sealed_with(row.record) for column in SEALED_COLUMNS for row in column.all_rows())


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


def _reseal_next(column: SealedColumn, after: str, tally: Tally) -> list[SealedRow]:
    """Look at the next few rows and seal anew what is not current. Nothing is counted unless it is committed."""
    resealed, unreadable = 0, []
    with transaction():
        sealing.take_turn()
        found = column.rows_after(after, _ROWS_AT_ONCE)
        for row in found:
            if not row.opens():
                unreadable.append(row)
            elif sealed_with(row.record) != parts().vault.active_key_id:
                # One that was not as it was read has been sealed meanwhile.
                resealed += column.replace(row, sealing.seal(parts().vault.open(row.record, row.place), row.place))
    for row in unreadable:
        column.note(row)
    tally.resealed += resealed
    tally.unreadable += [_told(column, row) for row in unreadable]
    tally.current += len(found) - resealed - len(unreadable)
    return found


def _told(column: SealedColumn, row: SealedRow) -> str:
    return f"{row.name} cannot be decrypted; {column.remedy}"
