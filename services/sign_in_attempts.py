"""What has begun at a browser and waits for an answer: a second factor, a passkey. It gives no access to anything.

The browser keeps a random token, the row its digest. A challenge is taken out of its row once, whatever the answer is.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, not_, select

from extensions import db
from models import SignInAttempt, User
from models.base import delete_some, new_id, now, transaction
from services.parts import parts
from services.secret import Secret

SECOND_FACTOR = "second_factor"
PASSKEY = "passkey"
PASSKEY_REGISTRATION = "passkey_registration"
PROOF = "proof"

LIFETIME = timedelta(minutes=10)
# Wrong codes are remembered for so long, whatever became of the attempt.
COUNTED_FOR = timedelta(days=1)
_COUNTED = (SECOND_FACTOR, PROOF)


def begin(
    kind: str,
    *,
    user_id: str | None = None,
    methods: Sequence[str] = (),
    remembered: bool = False,
    details: Mapping[str, Any] | None = None,
) -> Secret:
    """Note that something has begun; return the token for the browser. Joins the act's transaction."""
    token = Secret(secrets.token_urlsafe(32))
    with transaction() as session:
        session.add(
            SignInAttempt(
                id=new_id("att"),
                token_digest=_digest(token),
                kind=kind,
                user_id=user_id,
                methods=list(methods),
                remembered=remembered,
                details=dict(details or {}),
                created_at=now(),
                expires_at=now() + LIFETIME,
            )
        )
        session.flush()
    return token


def find(token: Secret, kind: str) -> SignInAttempt | None:
    """Return the attempt of a token while it lasts."""
    query = select(SignInAttempt).where(SignInAttempt.token_digest == _digest(token), SignInAttempt.kind == kind)
    found = db.session.scalars(query).first()
    return found if found is not None and found.expires_at > now() else None


def take_challenge(token: Secret, kind: str, purpose: str, user_id: str | None) -> str | None:
    """Return the challenge of an attempt and delete it, so that it is answered once.

    None when there is none for this purpose and this person. Not for use inside another act: what was taken must stay
    taken when the answer is refused.
    """
    with transaction() as session:
        taken = session.execute(
            delete(SignInAttempt)
            .where(SignInAttempt.token_digest == _digest(token), SignInAttempt.kind == kind)
            .returning(SignInAttempt.user_id, SignInAttempt.details, SignInAttempt.expires_at)
        ).first()
    if taken is None:
        return None
    whose, details, expires_at = taken
    if expires_at <= now() or whose != user_id or details.get("purpose") != purpose:
        return None
    return str(details["challenge"])


def wrong_codes(user: User, within: timedelta) -> int:
    """Return how many wrong codes were entered for a person in that time.

    What was tried before the last change of the password does not count: who tried it knows the password no more.
    """
    since = now() - within
    if user.password_changed_at is not None:
        since = max(since, user.password_changed_at)
    query = select(func.coalesce(func.sum(SignInAttempt.tries), 0)).where(
        SignInAttempt.user_id == user.id,
        SignInAttempt.kind.in_(_COUNTED),
        SignInAttempt.created_at > since,
        # Noted by a clock that has been put right since.
        SignInAttempt.created_at <= now() + LIFETIME,
    )
    return int(db.session.scalar(query) or 0)


def forget_old() -> bool:
    """Delete what is over, some at a time; tell whether there may be more. What holds wrong codes is kept for a day."""
    counted = and_(
        SignInAttempt.kind.in_(_COUNTED), SignInAttempt.tries > 0, SignInAttempt.created_at > now() - COUNTED_FOR
    )
    return delete_some(SignInAttempt, and_(SignInAttempt.expires_at <= now(), not_(counted)))


def _digest(token: Secret) -> bytes:
    return parts().attempt_digests.digest(token.reveal())
