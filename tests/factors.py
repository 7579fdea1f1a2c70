"""People with a second factor, for the tests."""

from __future__ import annotations

import time
from datetime import timedelta

import pyotp
from sqlalchemy import select

from extensions import db
from models import MailMessage, User
from models.base import now, transaction
from services import passkeys, second_factor, totp
from tests.authenticator import Authenticator
from tests.people import Person

WHERE = {"address": "203.0.113.5", "client": "tests/1.0"}


def user_of(person: Person) -> User:
    return db.session.get_one(User, person.user_id)


def confirm_address(person: Person) -> None:
    """Let the person be reached by mail."""
    with transaction() as session:
        session.get_one(User, person.user_id).email_confirmed_at = now()


def code_of(secret: str, steps: int = 0) -> str:
    """The code that an app shows so many steps from now."""
    return pyotp.TOTP(secret).at(now() + timedelta(seconds=30 * steps))


def add_app(person: Person) -> tuple[str, list[str]]:
    """Set up an app with the code of the step before; return its secret, and recovery codes if these are the first."""
    user = user_of(person)
    totp.begin(user)
    set_up = totp.set_up_of(user)
    assert set_up is not None
    secret = set_up.secret.reveal()
    # A step that ends in between would make it the code of two steps before.
    left = 30 - time.time() % 30
    if left < 1:
        time.sleep(left)
    codes = second_factor.confirm_app(user, code_of(secret, -1), person.actor)
    return secret, [code.reveal() for code in codes]


def add_passkey(person: Person, device: Authenticator | None = None, name: str = "Laptop") -> Authenticator:
    """Register a passkey of a device."""
    device = device or Authenticator()
    token, options = passkeys.begin_registration(user_of(person))
    passkeys.register(user_of(person), token, device.make(options), name, person.actor)
    return device


def wrong(secret: str) -> str:
    """A code that is not right now nor soon."""
    near = {code_of(secret, steps) for steps in range(-5, 6)}
    return next(code for code in ("000000", "111111", "222222") if code not in near)


def subjects() -> list[str]:
    """The subjects of the mails in the outbox, the oldest first, without the brand."""
    found = db.session.scalars(select(MailMessage.subject).order_by(MailMessage.created_at, MailMessage.id))
    return [subject.partition(": ")[2] for subject in found]
