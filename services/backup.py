"""Backup and restore: every row of the portal in one file, whichever database it comes from or goes to.

A backup is one reading transaction, so it is consistent while the portal serves. It holds no key: without the signing
key no API key in it works, and without the master keys no sealed secret in it opens. A restore loads the whole file
into a scratch database and checks it there, and then replaces everything in one transaction of the portal's own
database, or nothing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import current_app
from sqlalchemy import URL, Connection, MetaData, Table, create_engine, func, inspect, select, text, update
from sqlalchemy import exc as database_errors

from extensions import db
from models import MailMessage, ServerProcess, WebhookDelivery, WebhookEvent
from models.base import now
from models.postgresql import unbounded
from services import backup_file, instance_lock, rows, schema, sealed_columns, server_processes
from services.backup_file import Manifest, Reader
from services.errors import InvalidRequest
from services.parts import parts

# Sessions that were ended since the backup must not come back to life, and processes and their work are of their time.
_LEFT_OUT = {"login_session", "server_process", "job"}
# Whoever else works with the database, a console for example, may hold a restore up no longer than this.
_LOCK_SECONDS = 10


class RestoreRefused(InvalidRequest):
    """Nothing was changed; the message says why."""

    code = "restore_refused"


def make(path: Path) -> Manifest:
    """Write every row into the file, which takes the place of an earlier one when it is whole.

    Raises InvalidRequest when the database has no tables, or those of a newer version, or when something else than a
    file is in its place, and OSError.
    """
    with _snapshot() as connection:
        revision = schema.revision_of(connection)
        if revision is None or not schema.is_known(revision):
            raise InvalidRequest("The database has no tables yet, or those of a newer version of the portal.")
        with backup_file.writing(path) as writer:
            for table in _kept_tables(schema.tables_at(revision)):
                columns = [str(column.name) for column in table.columns]
                writer.add(str(table.name), columns, rows.read(connection, table))
            return writer.finish(
                revision=revision, signing_key=_signing_key_mark(), master_keys=sorted(parts().vault.key_ids)
            )


def restore(path: Path, *, replace: bool = False, with_other_keys: bool = False) -> Manifest:
    """Put what a backup holds in the place of everything there is.

    ``replace`` allows that there is something; ``with_other_keys`` allows that API keys will not work and sealed
    secrets not open here. Raises RestoreRefused, and then nothing has changed; OSError when the file cannot be read.
    """
    try:
        with instance_lock.alone(Path(current_app.instance_path)), backup_file.reading(path) as file:
            _check_that_it_fits(file.manifest, with_other_keys)
            _check_target(replace)
            with _scratch(file, with_other_keys) as scratch:
                _replace_everything(scratch)
            return file.manifest
    except instance_lock.InUse:
        raise RestoreRefused("The portal is serving, or another restore is under way. Stop it first.") from None
    except instance_lock.Unwritable as error:
        raise RestoreRefused(f"{error} Nothing was changed.") from error
    except backup_file.Damaged as error:
        raise RestoreRefused(f"{path} {error}. Nothing was changed.") from error


# ---- Making


@contextmanager
def _snapshot() -> Iterator[Connection]:
    """Give a connection that sees the database as it is at one moment."""
    engine = db.engine
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with engine.connect() as connection, unbounded(connection):
        yield connection


def _kept_tables(tables: MetaData) -> list[Table]:
    """Return the tables of a backup, each after those that it points at."""
    return [table for table in tables.sorted_tables if table.name not in _LEFT_OUT]


def _signing_key_mark() -> str:
    """Return what tells one signing key from another: a digest that no API key can have."""
    return parts().key_digests.digest("backup").hex()


# ---- Checking


def _check_that_it_fits(manifest: Manifest, with_other_keys: bool) -> None:
    if not schema.is_known(manifest.revision):
        raise RestoreRefused("The backup was made by a newer version of the portal. Install that one first.")
    expected = {
        table.name: [column.name for column in table.columns]
        for table in _kept_tables(schema.tables_at(manifest.revision))
    }
    if expected != {name: part.columns for name, part in manifest.tables.items()}:
        raise RestoreRefused("The backup does not hold the tables of the version that made it.")
    if manifest.signing_key != _signing_key_mark() and not with_other_keys:
        raise RestoreRefused(
            "The signing key here is not the one the backup was made with, so no API key would work. "
            "Give ARKA_SECRET_KEY that key, or let everybody make new keys: --with-other-keys."
        )


def _check_target(replace: bool) -> None:
    with db.engine.connect() as connection:
        revision = schema.revision_of(connection)
        if revision is None:
            return
        if not schema.is_known(revision):
            raise RestoreRefused("The database has the tables of a newer version of the portal.")
        _check_that_nobody_serves(connection)
        workspaces, people = (rows.count(connection, db.metadata.tables[name]) for name in ("workspace", "user"))
    if (workspaces or people) and not replace:
        raise RestoreRefused(
            f"There are {workspaces} workspaces and {people} people here, who would be replaced. "
            "Make a backup of them if they matter, then say --yes."
        )


def _check_that_nobody_serves(connection: Connection) -> None:
    """Servers on other machines hold no lock of ours, but tell in the database that they are alive."""
    if not inspect(connection).has_table(ServerProcess.__tablename__):
        return
    alive = connection.execute(
        select(ServerProcess.node, ServerProcess.alive_until)
        .where(server_processes.is_alive(now()))
        .order_by(ServerProcess.alive_until.desc())
    ).first()
    if alive is not None:
        raise RestoreRefused(
            f"A portal is serving on {alive.node}. Stop it first; if it was killed, wait until "
            f"{alive.alive_until:%H:%M:%S} UTC."
        )


@contextmanager
def _scratch(file: Reader, with_other_keys: bool) -> Iterator[Connection]:
    """Give a SQLite database of our own that holds the backup, upgraded and checked."""
    with tempfile.TemporaryDirectory(prefix="restore-", dir=current_app.instance_path) as folder:
        engine = create_engine(URL.create("sqlite", database=f"{folder}/scratch.db"), hide_parameters=True)
        try:
            with engine.connect() as connection:
                connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
                try:
                    _load(connection, file)
                    _check_loaded(connection, with_other_keys)
                except database_errors.OperationalError as error:
                    # No fault of the backup's; most likely there is no room.
                    raise RestoreRefused(
                        f"The backup cannot be unpacked in the instance folder: {error.orig}. Nothing was changed."
                    ) from error
                yield connection
        finally:
            engine.dispose()


def _load(connection: Connection, file: Reader) -> None:
    manifest = file.manifest
    schema.upgrade(connection, manifest.revision)
    try:
        for table in _kept_tables(schema.tables_at(manifest.revision)):
            _empty(connection, [table])
            rows.write(connection, table, file.rows(table.name))
    except database_errors.OperationalError:
        raise
    except (ValueError, TypeError, database_errors.SQLAlchemyError) as error:
        raise RestoreRefused("The backup holds rows that the database does not take.") from error
    schema.upgrade(connection)
    _hold_back_messages(connection)
    connection.commit()


def _hold_back_messages(connection: Connection) -> None:
    """What was waiting when the backup was made has been sent since, or is not this instance's to send."""
    waiting = MailMessage.sent_at.is_(None), MailMessage.failed_at.is_(None)
    held = {"failed_at": now(), "last_error": "Restored from a backup", "text": "", "html": ""}
    connection.execute(update(MailMessage).where(*waiting).values(held))
    undelivered = WebhookDelivery.delivered_at.is_(None), WebhookDelivery.failed_at.is_(None)
    connection.execute(update(WebhookDelivery).where(*undelivered).values(failed_at=now()))
    connection.execute(update(WebhookEvent).where(WebhookEvent.queued_at.is_(None)).values(queued_at=now()))


def _check_loaded(connection: Connection, with_other_keys: bool) -> None:
    if connection.execute(text("PRAGMA foreign_key_check")).first() is not None:
        raise RestoreRefused("The backup holds rows that point at others which it does not hold.")
    unreadable = Counter(column.kind for column, _ in sealed_columns.unreadable(connection))
    if unreadable and not with_other_keys:
        listed = ", ".join(f"{count} {kind}" for kind, count in unreadable.items())
        raise RestoreRefused(
            f"{listed} in the backup cannot be opened with the master keys here. Give ARKA_MASTER_KEY the key they "
            "were sealed with, or let them be set up again: --with-other-keys."
        )


# ---- Replacing


def _replace_everything(scratch: Connection) -> None:
    tables = schema.tables_at(schema.head()).sorted_tables
    # A read that this process has begun would be in our own way.
    db.session.remove()
    with db.engine.connect() as target, unbounded(target):
        if target.dialect.name == "sqlite":
            # It has to be said before the transaction; the scratch database has been checked.
            target.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        else:
            target.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
        target = target.execution_options(begin_immediate=True)
        schema.upgrade(target)
        _keep_servers_out(target)
        _empty(target, tables)
        for table in tables:
            written = rows.write(target, table, rows.read(scratch, table))
            _check_that_all_are_there(table, written, rows.count(target, table), rows.count(scratch, table))
        if target.dialect.name == "postgresql":
            _number_on(target, tables)
        target.commit()
    # Connections from before must not be used with settings from within.
    db.engine.dispose()


def _keep_servers_out(target: Connection) -> None:
    """Look once more whether nobody serves, because to unpack the backup took its time. From now on whoever starts has
    to wait with his first sign of life until this transaction ends; on SQLite all who write wait anyway."""
    if target.dialect.name == "postgresql":
        target.execute(text(f"LOCK TABLE {ServerProcess.__tablename__} IN ACCESS EXCLUSIVE MODE"))
    _check_that_nobody_serves(target)


def _check_that_all_are_there(table: Table, written: int, found: int, wanted: int) -> None:
    """A trigger of somebody's own, or a fault of ours, must not lose a row in silence."""
    if not written == found == wanted:
        raise RestoreRefused(
            f"The database holds {found:,} rows of {table.name} where the backup has {wanted:,}. Nothing was changed; "
            "look for triggers and rules on that table."
        )


def _empty(connection: Connection, tables: list[Table]) -> None:
    if connection.dialect.name == "postgresql":
        quoted = ", ".join(connection.dialect.identifier_preparer.format_table(table) for table in tables)
        connection.execute(text(f"TRUNCATE TABLE {quoted}"))
        return
    for table in reversed(tables):
        connection.execute(table.delete())


def _number_on(connection: Connection, tables: list[Table]) -> None:
    """Let the numbers that the database gives to new rows begin after those that were restored."""
    for table in tables:
        for column in table.primary_key:
            name = connection.dialect.identifier_preparer.format_table(table)
            sequence = connection.execute(select(func.pg_get_serial_sequence(name, column.name))).scalar()
            if sequence is not None:
                highest = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
                connection.execute(select(func.setval(sequence, highest, False)))
