"""Every column that holds sealed records: what changing the master key has to go through, and ``doctor`` to open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from extensions import db
from models import ProviderKey, TotpSecret, User, WebhookEndpoint, WebhookSecret, Workspace
from services import provider_keys, totp, webhooks
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
    """A table whose column ``sealed`` holds records. ``row`` makes a row of what ``query`` gives of each.

    ``kind`` is what many of them are called. ``remedy`` ends the sentence that names a row which cannot be decrypted;
    ``note`` tells the row itself.
    """

    model: type[ProviderKey] | type[TotpSecret] | type[WebhookSecret]
    query: Select[*tuple[Any, ...]]
    row: Callable[..., SealedRow]
    kind: str
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

    def rows_after(self, row_id: str, most: int, source: Connection | None = None) -> list[SealedRow]:
        """Return the next rows by id, at most so many; of another database, if one is given."""
        query = self.query.where(self.model.id > row_id).order_by(self.model.id).limit(most)
        found = db.session.execute(query) if source is None else source.execute(query)
        return [self.row(*values) for values in found]

    def all_rows(self, source: Connection | None = None, at_once: int = 50) -> Iterator[SealedRow]:
        after = ""
        while found := self.rows_after(after, at_once, source):
            yield from found
            after = found[-1].id


def _provider_key(row_id: str, record: str, workspace_id: str, provider: str, slug: str) -> SealedRow:
    place = provider_keys.place_of(workspace_id, provider, row_id)
    return SealedRow(row_id, record, place, f"{slug}: the {provider} key")


def _totp_secret(row_id: str, record: str, user_id: str, email: str) -> SealedRow:
    return SealedRow(row_id, record, totp.place_of(row_id, user_id), f"{email}: the secret of the authenticator app")


def _webhook_secret(row_id: str, record: str, endpoint_id: str, slug: str) -> SealedRow:
    place = webhooks.place_of(row_id, endpoint_id)
    # By its id: its address may hold a token.
    return SealedRow(row_id, record, place, f"{slug}: a signing secret of the webhook {endpoint_id}")


def _note_provider_key(row: SealedRow) -> None:
    """Let the pages show it, and calls be refused with words that say so."""
    key = db.session.get(ProviderKey, row.id)
    if key is not None:
        sealed = Sealed(row.record, row.place, key.id, key.state, key.workspace_id)
        provider_keys.note_outcome(key.workspace_id, sealed, CANNOT_DECRYPT)


SEALED_COLUMNS = (
    SealedColumn(
        ProviderKey,
        select(ProviderKey.id, ProviderKey.sealed, ProviderKey.workspace_id, ProviderKey.provider, Workspace.slug).join(
            Workspace, Workspace.id == ProviderKey.workspace_id
        ),
        _provider_key,
        "provider keys",
        "it has to be saved again",
        _note_provider_key,
    ),
    SealedColumn(
        TotpSecret,
        select(TotpSecret.id, TotpSecret.sealed, TotpSecret.user_id, User.email).join(
            User, User.id == TotpSecret.user_id
        ),
        _totp_secret,
        "secrets of authenticator apps",
        "the app has to be removed and set up anew",
    ),
    SealedColumn(
        WebhookSecret,
        select(WebhookSecret.id, WebhookSecret.sealed, WebhookSecret.endpoint_id, Workspace.slug)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookSecret.endpoint_id)
        .join(Workspace, Workspace.id == WebhookEndpoint.workspace_id),
        _webhook_secret,
        "signing secrets of webhooks",
        "it has to be rotated, without 24 more hours for the old one",
    ),
)


def unreadable(source: Connection | None = None) -> Iterator[tuple[SealedColumn, SealedRow]]:
    """Give each row that cannot be decrypted here, with its column; of another database, if one is given."""
    return ((column, row) for column in SEALED_COLUMNS for row in column.all_rows(source) if not row.opens())
