"""Every column that holds sealed records: what changing the master key has to go through, and ``doctor`` to open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select, update

from extensions import db
from models import ProviderKey, Workspace
from services import provider_keys
from services.parts import parts
from services.provider_keys import CANNOT_DECRYPT, Sealed
from services.vault import CannotDecrypt


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A row with a sealed record, the place it is bound to, and a name that tells the operator whose it is."""

    id: str
    record: str
    place: str
    name: str

    def opens(self) -> bool:
        try:
            parts().vault.open(self.record, self.place)
        except CannotDecrypt:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A table whose column ``sealed`` holds records. ``rows_after`` gives the next rows by id, at most so many.

    ``remedy`` ends the sentence that names a row which cannot be decrypted; ``note`` tells the row itself.
    """

    model: type[ProviderKey]
    rows_after: Callable[[str, int], list[SealedRow]]
    remedy: str
    note: Callable[[SealedRow], None] = lambda row: None

    def count(self) -> int:
        return db.session.scalar(select(func.count()).select_from(self.model)) or 0

    def replace(self, row: SealedRow, renewed: str) -> bool:
        """Put another record into a row; tell whether the row still was as it was read."""
        done = db.session.execute(
            update(self.model)
            .where(self.model.id == row.id, self.model.sealed == row.record)
            .values(sealed=renewed)
            .execution_options(synchronize_session=False)
        )
        return bool(done.rowcount)  # type: ignore[attr-defined]

    def all_rows(self, at_once: int = 50) -> Iterator[SealedRow]:
        after = ""
        while found := self.rows_after(after, at_once):
            yield from found
            after = found[-1].id


def _provider_keys_after(row_id: str, most: int) -> list[SealedRow]:
    key = ProviderKey
    query = (
        select(key.id, key.sealed, key.workspace_id, key.provider, Workspace.slug)
        .join(Workspace, Workspace.id == key.workspace_id)
        .where(key.id > row_id)
        .order_by(key.id)
        .limit(most)
    )
    return [
        SealedRow(key_id, sealed, provider_keys.place_of(workspace_id, provider, key_id), f"{slug}: the {provider} key")
        for key_id, sealed, workspace_id, provider, slug in db.session.execute(query)
    ]


def _note_provider_key(row: SealedRow) -> None:
    """Let the pages show it, and calls be refused with words that say so."""
    key = db.session.get(ProviderKey, row.id)
    if key is not None:
        sealed = Sealed(row.record, row.place, key.id, key.state, key.workspace_id)
        provider_keys.note_outcome(key.workspace_id, sealed, CANNOT_DECRYPT)


SEALED_COLUMNS = (SealedColumn(ProviderKey, _provider_keys_after, "it has to be saved again", _note_provider_key),)
