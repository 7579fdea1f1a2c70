"""Recovery codes: for who has lost their second factor. Ten of 80 bits, each good once; only digests are kept."""

from __future__ import annotations

import secrets

from sqlalchemy import delete, func, select, update

from extensions import db
from models import RecoveryCode, User
from models.base import new_id, now, transaction
from services.parts import parts
from services.secret import Secret

COUNT = 10
# From so many on it is time for new ones.
FEW = 3
_LENGTH = 16
# Crockford's base 32: no letter looks like another or like a digit.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LOOK_ALIKES = str.maketrans("oil", "011")
_BETWEEN = str.maketrans("", "", " -\t\r\n\u00a0\u2010\u2011\u2012\u2013\u2014\u2212")


def make(user: User) -> list[Secret]:
    """Replace a person's codes by new ones and return these, as they are shown. Joins the act's transaction."""
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH)) for _ in range(COUNT)]
    with transaction() as session:
        remove(user)
        session.add_all(
            RecoveryCode(id=new_id("rec"), user_id=user.id, digest=_digest(user, code), created_at=now())
            for code in codes
        )
        session.flush()
    return [Secret("-".join(code[at : at + 4] for at in range(0, _LENGTH, 4))) for code in codes]


def plain_form(text: str) -> str | None:
    """Return a code as it was made, however it was typed; None for what cannot be one."""
    if len(text) > 100:
        return None
    plain = text.translate(_BETWEEN).lower().translate(_LOOK_ALIKES)
    return plain if len(plain) == _LENGTH and set(plain) <= set(_ALPHABET) else None


def take(user: User, plain: str) -> bool:
    """Use a code up; tell whether it was one of the person's and unused. Of two at once, one is told yes."""
    with transaction() as session:
        taken = session.execute(
            update(RecoveryCode)
            .where(
                RecoveryCode.user_id == user.id,
                RecoveryCode.digest == _digest(user, plain),
                RecoveryCode.used_at.is_(None),
            )
            .values(used_at=now())
        )
        return bool(taken.rowcount)  # type: ignore[attr-defined]


def left(user: User) -> int:
    """Return how many codes a person has not used."""
    query = select(func.count()).where(RecoveryCode.user_id == user.id, RecoveryCode.used_at.is_(None))
    return db.session.scalar(query) or 0


def remove(user: User) -> None:
    """Forget all codes of a person. Joins the act's transaction."""
    with transaction() as session:
        session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user.id))


def _digest(user: User, plain: str) -> bytes:
    return parts().recovery_digests.digest(f"{user.id}:{plain}")
