"""Is the installation sound? A list of checks, each of which says in a sentence what it found."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import current_app
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from extensions import db
from services import audit, audit_chain, provider_check, schema, sealing, vault_rotation
from services.gateway.provider_answers import UNREACHABLE
from services.parts import parts
from services.secret import Secret

_LEAST_FREE_BYTES = 100_000_000
_KEY_FILES = ("secret_key", "master_key")
# A master key is to be changed well before it must not seal any more.
_MANY_SEALS = sealing.MOST_SEALS * 9 // 10
# Of so many it is looked with which signing key they were made. One does, but its log may have been changed.
_OLDEST_WORKSPACES = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a sentence, and whether it is as it should be."""

    good: bool
    words: str


@dataclass(frozen=True, slots=True)
class Check:
    """A check with its name. ``run`` yields what it finds; an exception is a finding, too."""

    title: str
    run: Callable[[], Iterator[Finding]]
    # Asks other machines, so it is made only when it is wanted.
    outside: bool = False


def examine(*, outside: bool = False) -> Iterator[tuple[str, Finding]]:
    """Carry out every check and yield its findings with its name; ``outside`` also asks the providers."""
    for check in CHECKS:
        if outside or not check.outside:
            yield from ((check.title, finding) for finding in _findings(check))


def _findings(check: Check) -> Iterator[Finding]:
    try:
        yield from check.run()
    except Exception as error:
        yield Finding(False, _unchecked(error))
    finally:
        with contextlib.suppress(SQLAlchemyError):
            db.session.rollback()


def _unchecked(error: Exception) -> str:
    # The text of an error may hold the address of the database, and so its password.
    return f"could not be checked: {type(error).__name__}"


# ---- the checks


def _database() -> Iterator[Finding]:
    db.session.execute(text("SELECT 1"))
    fault = parts().quick.why_no_writes()
    yield Finding(fault is None, f"{db.engine.dialect.name} {fault or 'answers'}")


def _schema() -> Iterator[Finding]:
    wanted = schema.head()
    found = schema.revision_of(db.session.connection())
    if found == wanted:
        yield Finding(True, f"at {found}, the newest")
    elif found is not None and not schema.is_known(found):
        yield Finding(
            False, f"at {found}, which a newer version of the portal has made: bring this one to that version"
        )
    else:
        yield Finding(False, f"at {found or 'nothing'}, not at {wanted}: run `flask --app app db upgrade`")


def _signing_key() -> Iterator[Finding]:
    """Where its file is lost a new one is made at the next start, and nothing says so but keys that do not work."""
    ours = audit_chain.begun_with_our_key(db.session, _OLDEST_WORKSPACES)
    others = ours.count(False)
    if not ours:
        yield Finding(True, "nothing was made with one yet")
    elif not others:
        yield Finding(True, "it is the one that what is here was made with")
    else:
        yield Finding(False, _other_signing_key(others, len(ours)))


def _other_signing_key(others: int, workspaces: int) -> str:
    made = "what is here was made with"
    if others < workspaces:
        # The check of the audit log tells whether that is it.
        made = f"{others} of the {workspaces} oldest workspaces were made with, unless their audit logs were changed"
    return (
        f"it is not the one that {made}, so no API key from then works: put the right one back, into secret_key of the "
        "instance folder or ARKA_SECRET_KEY; if it is lost, make new API keys and run `flask --app app audit seal "
        "--anew`"
    )


def _limits() -> Iterator[Finding]:
    limits = parts().limits
    if limits.is_up():
        yield Finding(True, "the storage of the rate limits counts")
    else:
        meanwhile = "each process counts in its own memory" if limits.falls_back else "calls get 503"
        yield Finding(False, f"the storage of the rate limits does not count; meanwhile {meanwhile}")


def _vault() -> Iterator[Finding]:
    closed = vault_rotation.unreadable()
    yield from (Finding(False, sentence) for sentence in closed)
    if not closed:
        yield Finding(True, f"all {vault_rotation.count_rows()} sealed secrets can be decrypted")


def _master_key() -> Iterator[Finding]:
    name = parts().vault.active_key_id
    seals = sealing.seals_of(name)
    advice = "" if seals < _MANY_SEALS else "; change it with `flask --app app vault rotate --new-key`"
    yield Finding(not advice, f"{name} has sealed {seals:,} times of at most {sealing.MOST_SEALS:,}{advice}")


def _audit() -> Iterator[Finding]:
    """Every chain is verified now: what the background task found last may have changed since."""
    broken = list(audit.first_breaks())
    for found in broken:
        yield Finding(False, f"entry {found.number:,} of the workspace {found.workspace} is missing or was changed")
    if not broken:
        yield Finding(True, "as it was written")


def _key_files() -> Iterator[Finding]:
    folder = Path(current_app.instance_path)
    for path in (folder / name for name in _KEY_FILES if (folder / name).exists()):
        mode = stat.S_IMODE(path.stat().st_mode)
        open_to_others = mode & 0o077
        advice = f", so others may read it: run `chmod 600 {path}`" if open_to_others else ""
        yield Finding(not open_to_others, f"{path.name} has mode {mode:04o}{advice}")


def _disk() -> Iterator[Finding]:
    folder = Path(current_app.instance_path)
    probe = folder / f".doctor.{os.getpid()}"
    try:
        probe.write_bytes(b"x")
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    yield Finding(free >= _LEAST_FREE_BYTES, f"the instance folder can be written, {free // 1_000_000:,} MB are free")


def _providers() -> Iterator[Finding]:
    """Any answer will do, also one that refuses: whether a key works is no question of the installation."""
    for provider in parts().providers.values():
        try:
            found = provider_check.check(provider, Secret("sk-doctor"), parts().upstream)
        except Exception as error:
            # The others are to be asked as well.
            yield Finding(False, f"{provider.title} {_unchecked(error)}")
            continue
        reached = found.state != UNREACHABLE
        words = "answers" if reached else f"cannot be reached: {found.words}"
        yield Finding(reached, f"{provider.title} {words}")


# In the order in which they are made; what others rest on comes first.
CHECKS = [
    Check("database", _database),
    Check("schema", _schema),
    Check("signing key", _signing_key),
    Check("limits", _limits),
    Check("vault", _vault),
    Check("master key", _master_key),
    Check("audit log", _audit),
    Check("key files", _key_files),
    Check("disk", _disk),
    Check("providers", _providers, outside=True),
]
