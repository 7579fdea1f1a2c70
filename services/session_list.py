"""The sessions of a person: which browsers are signed in, and how to sign them out."""

from __future__ import annotations

from sqlalchemy import delete, select, update

from extensions import db
from models import LoginSession, SignInAttempt, User
from models.base import now, transaction
from services import audit, workspaces
from services.actor import Actor
from services.errors import NotFound
from services.sign_in_attempts import SECOND_FACTOR


def living(user: User) -> list[LoginSession]:
    """Return the browsers that are signed in, the one seen last in front."""
    query = select(LoginSession).where(LoginSession.user_id == user.id, LoginSession.expires_at > now())
    return list(db.session.scalars(query.order_by(LoginSession.last_seen_at.desc(), LoginSession.id)))


def end_one(user: User, session_id: str, actor: Actor) -> None:
    """Sign one browser of the user out, at once. Raises NotFound."""
    with transaction() as session:
        ended = session.execute(
            delete(LoginSession)
            .where(LoginSession.id == session_id, LoginSession.user_id == user.id)
            .returning(LoginSession.id)
        ).first()
        if ended is None:
            raise NotFound
        _record(user, actor, 1)


def end_others(login_session: LoginSession, actor: Actor) -> int:
    """Sign every other browser of the user out, at once; return how many."""
    with transaction():
        ended = end_all(login_session.user, but=login_session)
        if ended:
            _record(login_session.user, actor, ended)
    return ended


def end_all(user: User, *, but: LoginSession | None = None) -> int:
    """Sign every browser of the user out, and end every sign-in that has begun. Return how many were signed out.

    ``but`` is the session that stays. Joins the act's transaction.
    """
    with transaction() as session:
        ended = session.execute(
            delete(LoginSession)
            .where(LoginSession.user_id == user.id, LoginSession.id != (but.id if but else ""))
            .returning(LoginSession.id)
        ).all()
        # Wrong codes that were entered in them still count.
        session.execute(
            update(SignInAttempt)
            .where(SignInAttempt.user_id == user.id, SignInAttempt.kind == SECOND_FACTOR)
            .values(expires_at=now())
        )
    return len(ended)


def _record(user: User, actor: Actor, number: int) -> None:
    workspace = workspaces.first_of(user)
    if workspace is not None:
        details = {"sessions": number}
        audit.record(
            workspace.id, actor, "user:end_sessions", object_id=user.id, object_name=user.email, details=details
        )
