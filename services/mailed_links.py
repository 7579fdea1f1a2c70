"""Links that are sent by mail. Whoever opens one can read mail at its address; each is good once, for a time.

Opening a link uses nothing up, because programs that check mail open links too; sending its form does.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from sqlalchemy import func, select, update

from extensions import db
from models import MailedLink, User
from models.base import delete_some, new_id, now, transaction
from services.errors import LinkUsed
from services.parts import parts
from services.secret import Secret

CONFIRM = "confirm_email"
RESET = "reset_password"
CHANGE = "change_email"
# For the address that was left: takes a change back.
UNDO = "undo_email"
# Counts messages that hold no link of their own, such as the one to somebody who has an account already.
NOTICE = "notice"

_HOUR = timedelta(hours=1)
LIFETIMES = {CONFIRM: 24 * _HOUR, RESET: _HOUR, CHANGE: 24 * _HOUR, UNDO: 72 * _HOUR, NOTICE: _HOUR}
# A stranger can ask for messages to somebody else's address: so many in an hour, and no more.
MOST_AN_HOUR = 3
_KEPT = timedelta(days=1)


def make(user: User, purpose: str, email: str) -> Secret:
    """Return what goes into a new link. Joins the act's transaction; the caller mails it to ``email``."""
    token = Secret(secrets.token_urlsafe(32))
    with transaction() as session:
        session.add(
            MailedLink(
                id=new_id("lnk"),
                purpose=purpose,
                user_id=user.id,
                email=email,
                digest=_digest(token),
                created_at=now(),
                expires_at=now() + LIFETIMES[purpose],
            )
        )
        session.flush()
    return token


def enough(user: User, purpose: str) -> bool:
    """Tell whether so many were made lately that another message would only be a nuisance."""
    recent = select(func.count()).where(
        MailedLink.user_id == user.id, MailedLink.purpose == purpose, MailedLink.created_at > now() - _HOUR
    )
    return (db.session.scalar(recent) or 0) >= MOST_AN_HOUR


def find(token: Secret, purpose: str) -> MailedLink | None:
    """Return the link of a token while it is good; nothing for a closed account."""
    query = select(MailedLink).where(MailedLink.digest == _digest(token), MailedLink.purpose == purpose)
    link = db.session.scalars(query).first()
    if link is None or link.used_at is not None or link.expires_at <= now():
        return None
    return link if user_of(link).closed_at is None else None


def take(token: Secret, purpose: str) -> tuple[MailedLink, User]:
    """Use the link up and return it with its user, whose row is locked. Joins the act's transaction.

    Raises LinkUsed: of two who try at once one gets it.
    """
    found = find(token, purpose)
    if found is None:
        raise LinkUsed
    with transaction() as session:
        user = session.scalars(select(User).where(User.id == found.user_id).with_for_update()).one()
        taken = session.execute(
            update(MailedLink)
            .where(MailedLink.id == found.id, MailedLink.used_at.is_(None), MailedLink.expires_at > now())
            .values(used_at=now())
            .returning(MailedLink.id)
        ).first()
        if taken is None or user.closed_at is not None:
            raise LinkUsed
        session.refresh(user)
    return found, user


def void(user: User, *purposes: str) -> None:
    """Let the user's open links of these purposes open nothing any more. Joins the act's transaction."""
    with transaction() as session:
        session.execute(
            update(MailedLink)
            .where(MailedLink.user_id == user.id, MailedLink.purpose.in_(purposes), MailedLink.used_at.is_(None))
            .values(used_at=now())
        )


def pending_change(user: User) -> MailedLink | None:
    """Return the latest change of address that waits for its link to be opened."""
    query = select(MailedLink).where(
        MailedLink.user_id == user.id,
        MailedLink.purpose == CHANGE,
        MailedLink.used_at.is_(None),
        MailedLink.expires_at > now(),
    )
    return db.session.scalars(query.order_by(MailedLink.created_at.desc()).limit(1)).first()


def forget_old() -> bool:
    """Delete links that are long over, some at a time; tell whether there may be more."""
    return delete_some(MailedLink, MailedLink.expires_at < now() - _KEPT)


def user_of(link: MailedLink) -> User:
    """Return whose link it is."""
    return db.session.get_one(User, link.user_id)


def _digest(token: Secret) -> bytes:
    return parts().link_digests.digest(token.reveal())
