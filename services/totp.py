"""Codes of an authenticator app (TOTP, RFC 6238): the shared secret, and whether a code is right."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import timedelta

import pyotp
import structlog
from sqlalchemy import delete, select

from extensions import db
from models import TotpSecret, User
from models.base import new_id, now, transaction
from services import sealing
from services.parts import parts
from services.secret import Secret
from services.vault import CannotDecrypt

STEP_SECONDS = 30
DIGITS = 6
# A clock may be one step behind or ahead.
DRIFT_STEPS = 1
# How long a set-up may take until its secret is worth nothing.
SET_UP_FOR = timedelta(hours=1)

_log = structlog.get_logger("totp")


@dataclass(frozen=True, slots=True)
class SetUp:
    """What an authenticator app needs: the secret in base 32, and the same as an address for a QR code."""

    secret: Secret
    address: Secret


def place_of(row_id: str, user_id: str) -> str:
    """Return the place that a row's secret is sealed for."""
    return f"totp/{row_id}/{user_id}"


def find(user: User) -> TotpSecret | None:
    """Return the confirmed secret of a person."""
    row = _row_of(user)
    return row if row is not None and row.confirmed_at is not None else None


def begin(user: User) -> None:
    """Make a secret that counts once a code was shown; one that waits is replaced. Does nothing when one counts."""
    with transaction() as session:
        if find(user) is not None:
            return
        # The vault's turn before the row's, as everywhere.
        sealing.take_turn()
        session.execute(delete(TotpSecret).where(TotpSecret.user_id == user.id))
        row_id = new_id("totp")
        record = sealing.seal(Secret(pyotp.random_base32()), place_of(row_id, user.id))
        session.add(TotpSecret(id=row_id, user_id=user.id, sealed=record, created_at=now()))
        session.flush()


def set_up_of(user: User) -> SetUp | None:
    """Return the secret that waits for its first code, or None when there is none that can be read."""
    row = _row_of(user)
    if row is None or row.confirmed_at is not None or row.created_at <= now() - SET_UP_FOR:
        return None
    secret = _opened(row)
    if secret is None:
        return None
    address = pyotp.TOTP(secret.reveal()).provisioning_uri(name=user.email, issuer_name=parts().brand)
    return SetUp(secret, Secret(address))


def take_code(user: User, code: str, *, waiting: bool = False) -> bool:
    """Tell whether a code of six digits is right and was not taken before; it is taken by this.

    ``waiting`` asks the secret that is being set up, and lets it count from now on. Call it in a transaction that has
    locked the person: two at once must not take the same code.
    """
    row = _row_of(user)
    if row is None or (row.confirmed_at is None) != waiting or (waiting and row.created_at <= now() - SET_UP_FOR):
        return False
    secret = _opened(row)
    step = _matching_step(secret, code) if secret is not None else None
    if step is None or _was_taken(row, step):
        return False
    row.last_step = step
    if waiting:
        row.confirmed_at = now()
    db.session.flush()
    return True


def remove(user: User) -> None:
    """Forget the secret. Joins the act's transaction."""
    with transaction() as session:
        session.execute(delete(TotpSecret).where(TotpSecret.user_id == user.id))


def is_readable(row: TotpSecret) -> bool:
    """Tell whether the vault opens the secret; without it no code of the app is right."""
    return _opened(row) is not None


def _row_of(user: User) -> TotpSecret | None:
    return db.session.scalars(select(TotpSecret).where(TotpSecret.user_id == user.id)).first()


def _opened(row: TotpSecret) -> Secret | None:
    try:
        return parts().vault.open(row.sealed, place_of(row.id, row.user_id))
    except CannotDecrypt:
        _log.error("an authenticator secret cannot be decrypted", row=row.id)
        return None


def _was_taken(row: TotpSecret, step: int) -> bool:
    if row.last_step is None or row.last_step > _present_step() + DRIFT_STEPS:
        # A step that is still to come was noted by a clock that has been put right since.
        return False
    return step <= row.last_step


def _present_step() -> int:
    return int(now().timestamp()) // STEP_SECONDS


def _matching_step(secret: Secret, code: str) -> int | None:
    """Return the newest step whose code this is. Every step is compared, whichever is right."""
    totp = pyotp.TOTP(secret.reveal(), digits=DIGITS, interval=STEP_SECONDS)
    present = _present_step()
    steps = range(present - DRIFT_STEPS, present + DRIFT_STEPS + 1)
    right = [step for step in steps if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode())]
    return max(right, default=None)
