"""Keys found in the open: whoever holds one may end it. Possession is the proof, as at GitHub and PyPI.

What ends is what was found. A key's current secret ends the key for good, and with it the previous secret of a
rotation; the previous secret ends alone, and the key goes on with its current one. A publishable key is meant to be
public, so having one proves nothing and ends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select

from extensions import db
from models import ApiKey, ApiKeySecret, Workspace
from models.base import now, transaction
from services import audit, keys, logs, mail
from services.actor import Actor
from services.errors import InvalidInput, NotFound
from services.members import managers_of
from services.parts import parts
from services.secret import Secret

NOTE_LENGTH = 300
_FINDER = "Somebody who had the key"


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a secret that works belongs."""

    workspace_id: str
    key_id: str
    secret_id: str


def end(shown: Secret, note: str, *, address: str | None, client: str | None) -> None:
    """End the secret if it is one that works, and tell the owners and admins of its workspace.

    Returns in the same way and after the same work whether a key of this form has ended before or never was one.
    ``note`` is what the finder wants them to know. Raises InvalidInput for what the form alone tells: no key of this
    portal, a wrong checksum, a publishable key.
    """
    text, note = shown.reveal().strip(), note.strip()
    _check(text, note)
    found = _find(text)
    if found is None:
        return
    finder = Actor(kind="finder", name=_FINDER, address=address, client=client)
    with transaction():
        _end(found, finder, _harmless(note))


def _check(text: str, note: str) -> None:
    faults = {}
    if fault := _fault_of(text):
        faults["key"] = fault
    if len(note) > NOTE_LENGTH:
        faults["note"] = f"Use at most {NOTE_LENGTH} characters"
    if faults:
        raise InvalidInput(faults)


def _fault_of(text: str) -> str | None:
    """Return what the form alone tells, which anybody can find out without asking us."""
    if not text:
        return "Paste the key"
    parsed = parts().key_format.parse(text)
    if parsed is None:
        return f"This is not one of our keys by its form. They begin with {parts().key_format.prefix}_sk_"
    if not parsed.checksum_holds:
        return "This looks like one of our keys, but its last characters do not fit the others. Copy all of it"
    if parsed.kind == "publishable":
        return "This is a publishable key. It is meant to be public, so nothing was done"
    return None


def _find(text: str) -> _Found | None:
    query = (
        select(ApiKey.workspace_id, ApiKey.id, ApiKeySecret.id)
        .join(ApiKey, ApiKey.id == ApiKeySecret.api_key_id)
        .where(
            ApiKeySecret.digest == parts().key_digests.digest(text),
            ApiKey.deleted_at.is_(None),
            or_(ApiKeySecret.ends_at.is_(None), ApiKeySecret.ends_at > now()),
        )
    )
    row = db.session.execute(query).first()
    return None if row is None else _Found(*row)


def _end(found: _Found, finder: Actor, note: str) -> None:
    workspace = db.session.get_one(Workspace, found.workspace_id)
    try:
        key = keys.locked(workspace, found.key_id)
    except NotFound:
        return
    secret = next((secret for secret in key.secrets if secret.id == found.secret_id), None)
    if secret is None:
        # It has ended since it was found.
        return
    mask, current = secret.mask, secret is key.secrets[0]
    if current:
        keys.erase(key)
    else:
        key.secrets.remove(secret)
    db.session.flush()
    ended = "key" if current else "previous secret"
    details = {"ended": ended, "mask": mask, "note": note}
    audit.record(workspace.id, finder, "key:found", object_id=key.id, object_name=key.name, details=details)
    _tell(workspace, key, mask, finder, note, current=current)


def _tell(workspace: Workspace, key: ApiKey, mask: str, finder: Actor, note: str, *, current: bool) -> None:
    what = f"Your API key “{key.name}”" if current else f"The previous secret of “{key.name}”"
    for person in managers_of(workspace):
        mail.queue(
            person.email,
            f"{what} was found and ended",
            "key_found",
            workspace.id,
            workspace_name=workspace.name,
            key_id=key.id,
            key_name=key.name,
            mask=mask,
            current=current,
            at=now(),
            address=finder.address,
            note_lines=note.splitlines(),
        )


def _harmless(note: str) -> str:
    """Return the note without control characters, and without any key that was pasted into it."""
    lines = ("".join(letter for letter in line if letter.isprintable()) for line in note.splitlines())
    return str(logs.clean("\n".join(lines)))
