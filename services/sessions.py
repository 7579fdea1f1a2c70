"""Sessions: a signed-in browser has a row, found by the token in its cookie. Without the row it is signed out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from sqlalchemy import and_, bindparam, delete, not_, or_, select, update

from extensions import db
from models import LoginSession, User
from models.base import delete_some, new_id, now, transaction
from models.quick import DatabaseUnavailable, Prepared
from services import audit, workspaces
from services.actor import Actor
from services.errors import NotFound
from services.parts import parts
from services.secret import Secret

# How long a session lasts at most, and how long without being used. One that is not remembered ends with the browser
# as well, for its cookie does.
LIFETIME, IDLE = timedelta(days=7), timedelta(hours=12)
LONGEST, LONGEST_IDLE = timedelta(days=30), timedelta(days=14)
_SEEN_AGAIN_AFTER = timedelta(minutes=1)
_CLIENT_LENGTH = 200


def begin(
    user: User, *, methods: Sequence[str], address: str | None, client: str | None, remembered: bool = False
) -> Secret:
    """Sign a browser in and return the token of its session. Joins the act's transaction.

    ``methods`` is how the person has proved who they are: "password", "totp" and so on. A session that is
    ``remembered`` outlives the browser.
    """
    token = Secret(secrets.token_urlsafe(32))
    with transaction() as session:
        workspace = workspaces.first_of(user)
        session.add(
            LoginSession(
                id=new_id("ses"),
                token_digest=_digest(token),
                user_id=user.id,
                workspace_id=workspace.id if workspace else None,
                created_at=now(),
                last_seen_at=now(),
                expires_at=now() + (LONGEST if remembered else LIFETIME),
                address=address,
                client=client[:_CLIENT_LENGTH] if client else None,
                methods=list(methods),
                proved_at=now(),
                remembered=remembered,
            )
        )
        user.last_sign_in_at = now()
        session.flush()
        actor = Actor(kind="user", name=user.email, id=user.id, address=address, client=client)
        if workspace is not None:
            details = {"methods": list(methods)}
            audit.record(
                workspace.id, actor, "user:sign_in", object_id=user.id, object_name=user.email, details=details
            )
    return token


def end(token: Secret) -> None:
    """End the session at once; its cookie is worth nothing from now on."""
    with transaction() as session:
        session.execute(delete(LoginSession).where(LoginSession.token_digest == _digest(token)))


def find(token: Secret) -> LoginSession | None:
    """Return the living session of a token, and note that it was seen."""
    found = db.session.scalars(select(LoginSession).where(LoginSession.token_digest == _digest(token))).first()
    if found is None or found.expires_at <= now() or found.last_seen_at <= now() - _idle(found):
        return None
    if now() - found.last_seen_at > _SEEN_AGAIN_AFTER:
        # Who only reads must not be stopped by a database that cannot write.
        with suppress(DatabaseUnavailable):
            parts().quick.run(_SEEN, {"session": found.id, "at": now()})
    return found


def forget_ended() -> bool:
    """Delete sessions that have ended by themselves, some at a time; tell whether there may be more."""
    unused = or_(
        LoginSession.last_seen_at <= now() - LONGEST_IDLE,
        and_(not_(LoginSession.remembered), LoginSession.last_seen_at <= now() - IDLE),
    )
    return delete_some(LoginSession, or_(LoginSession.expires_at <= now(), unused))


def note_proof(login_session: LoginSession, method: str) -> Secret:
    """Note that whoever has the session has proved anew who they are, and how. Joins the act's transaction.

    Returns the token by which the session is known from now on; the one before is worth nothing any more. Raises
    NotFound when the session has ended meanwhile.
    """
    token = Secret(secrets.token_urlsafe(32))
    with transaction() as session:
        row = session.get(LoginSession, login_session.id)
        if row is None:
            raise NotFound
        row.token_digest = _digest(token)
        row.proved_at = now()
        row.methods = [*row.methods, *({method} - set(row.methods))]
        session.flush()
    return token


def _idle(login_session: LoginSession) -> timedelta:
    return LONGEST_IDLE if login_session.remembered else IDLE


_SEEN = Prepared(
    update(LoginSession)
    .where(LoginSession.id == bindparam("session"))
    .values(last_seen_at=bindparam("at", type_=LoginSession.last_seen_at.type))
)


def _digest(token: Secret) -> bytes:
    return parts().session_digests.digest(token.reveal())
