"""Sealing what is to be stored: each master key counts its seals, and is retired before it has sealed too often."""

from __future__ import annotations

from sqlalchemy import select, update

from extensions import db
from models import MasterKeyUse
from models.base import now, one_at_a_time, transaction
from services.errors import ServiceUnavailable
from services.parts import parts
from services.secret import Secret

# How often one key may be used with random nonces (NIST SP 800-38D, section 8.3).
MOST_SEALS = 2**32
_RETRY_SECONDS = 3600


class MasterKeyUsedUp(ServiceUnavailable):
    """The master key must not seal any more; what it sealed still opens."""

    code = "master_key_used_up"
    message = "The vault needs a new master key before it can keep another secret. The operator has to add one."


def seal(secret: Secret, place: str) -> str:
    """Return ``secret`` sealed for ``place``. Joins the act's transaction, in which the seal is counted.

    Raises MasterKeyUsedUp.
    """
    with transaction():
        take_turn()
        vault = parts().vault
        _count(vault.active_key_id)
        return vault.seal(secret, place)


def take_turn() -> None:
    """Wait for whoever seals or changes the ring, then see the ring as they left it. Holds until the act ends.

    Raises ServiceUnavailable when the ring cannot be seen: a key that was taken out of it must seal nothing more.
    """
    one_at_a_time("vault")
    if not parts().vault.refresh():
        raise ServiceUnavailable("The file of the master keys cannot be read. Nothing was changed.")


def seals_of(name: str) -> int:
    """Return how often the master key with this public name has sealed."""
    return db.session.scalar(select(MasterKeyUse.seals).where(MasterKeyUse.key_id == name)) or 0


def _count(name: str) -> None:
    session = db.session
    counted = session.execute(
        update(MasterKeyUse)
        .where(MasterKeyUse.key_id == name, MasterKeyUse.seals < MOST_SEALS)
        .values(seals=MasterKeyUse.seals + 1)
    )
    if counted.rowcount:  # type: ignore[attr-defined]
        return
    if seals_of(name):
        raise MasterKeyUsedUp(retry_after=_RETRY_SECONDS)
    session.add(MasterKeyUse(key_id=name, seals=1, first_used_at=now()))
    session.flush()
