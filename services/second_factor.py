"""The second factor of a person: an authenticator app, passkeys, and recovery codes for when neither is at hand.

It is on while there is an app or a passkey. Codes of the app can be guessed, so wrong ones are counted for each
person over all attempts; a recovery code or a passkey cannot, and works whatever the count is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import delete, func, inspect, select

from extensions import db
from models import LoginSession, Passkey, User
from models.base import transaction
from services import accounts, passwords, recovery_codes, security_notices, sign_in_attempts, totp
from services.actor import Actor
from services.errors import InvalidInput, LimiterAway, NotFound, RateLimited, WrongCredentials
from services.parts import parts
from services.rate_limits import StoreUnavailable
from services.secret import Secret

# Three codes are right at any moment, so 30 tries a day find one in about 30 years.
MOST_WRONG = ((timedelta(hours=1), 10), (timedelta(days=1), 30))
# After so many the owner is told.
TOLD_AFTER = 5
# Of who is signed in, at their own password.
TRIES_PER_MINUTE = 10

Result = TypeVar("Result")

_NOT_RIGHT = "That code is not right, or it was used before."


class WrongCode(WrongCredentials):
    """A code that is no code of this person now; never said why."""

    message = _NOT_RIGHT


class TooManyCodes(WrongCredentials):
    """So many wrong codes that no code of the app is looked at for a while; other ways stay open."""

    status = 429
    message = "Too many wrong codes. Use a recovery code or a passkey, or try again later."


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person's second factor consists of."""

    app: bool
    app_readable: bool
    passkeys: int
    codes_left: int

    @property
    def on(self) -> bool:
        return self.app or self.passkeys > 0


def standing(user: User) -> Standing:
    """Return what a person's second factor consists of."""
    row = totp.find(user)
    return Standing(
        app=row is not None,
        app_readable=row is not None and totp.is_readable(row),
        passkeys=_passkey_count(user),
        codes_left=recovery_codes.left(user),
    )


def is_on(user: User) -> bool:
    """Tell whether signing in takes more than the first factor. A secret that cannot be read still does."""
    return totp.find(user) is not None or _passkey_count(user) > 0


def is_missing(login_session: LoginSession) -> bool:
    """Tell whether the portal asks everybody for a second factor, and this person has none."""
    if not parts().second_factor_required or is_on(login_session.user):
        return False
    provider = parts().oidc
    return not (provider is not None and provider.settings.second_factor and "oidc" in login_session.methods)


def take(
    user: User, text: str, actor: Actor, *, then: Callable[[str], Result], note_wrong: Callable[[], None]
) -> Result:
    """Use a code of the app or a recovery code up, and do what it was asked for in the same transaction.

    ``then`` is told which it was, "totp" or "recovery_code"; ``note_wrong`` is called instead for a code that is not
    right. Not for use inside another act: the note must stay when the refusal is raised. Raises WrongCode, and
    TooManyCodes for a code of the app when too many were wrong lately.
    """
    with transaction():
        lock(user)
        refusal = _judge(user, text)
        if refusal is None:
            return then(_noted(user, text, actor))
        if isinstance(refusal, WrongCode):
            note_wrong()
            _tell_of_wrong_codes(user, actor)
    raise refusal


def lock(user: User) -> None:
    """Let no other act decide about this person's factors until the present one ends.

    Raises WrongCredentials for whoever has deleted their account meanwhile.
    """
    # What is known of the row without asking for it: it may be gone.
    identity = inspect(user).identity
    if db.session.get(User, identity, populate_existing=True, with_for_update={"key_share": True}) is None:
        raise WrongCredentials


# ---- switching on and off


def confirm_app(user: User, code: str, actor: Actor) -> list[Secret]:
    """Let an app count, shown by its first code. Returns recovery codes when these are the first, else nothing.

    Raises InvalidInput when the code is not right.
    """
    with transaction():
        lock(user)
        was_on = is_on(user)
        digits = _digits(code)
        if digits is None or not totp.take_code(user, digits, waiting=True):
            raise InvalidInput({"code": "That code is not right. Enter the one that the app shows now"})
        security_notices.tell(user, actor, "user:app_add")
        return first_codes(user, actor, was_on=was_on, how="an authenticator app")


def first_codes(user: User, actor: Actor, *, was_on: bool, how: str) -> list[Secret]:
    """Return recovery codes for whose second factor has just come on; nothing for others. Joins the transaction."""
    if was_on:
        return []
    security_notices.tell(user, actor, "user:second_factor_on", how)
    return recovery_codes.make(user)


def new_codes(user: User, actor: Actor) -> list[Secret]:
    """Replace the recovery codes. Raises InvalidInput while there is no second factor that they could stand for."""
    with transaction():
        lock(user)
        if not is_on(user):
            raise InvalidInput({"codes": "Recovery codes come with an authenticator app or a passkey"})
        security_notices.tell(user, actor, "user:recovery_codes_make")
        return recovery_codes.make(user)


def remove_app(user: User, actor: Actor, *, password: Secret | None) -> None:
    """Forget the app. Raises InvalidInput when that would leave a password too short to stand alone."""
    with transaction():
        lock(user)
        if totp.find(user) is None:
            return
        if is_last(user):
            require_long_password(user, password)
        totp.remove(user)
        security_notices.tell(user, actor, "user:app_remove")
        clear_up(user, actor)


def reset(email: str, actor: Actor) -> None:
    """Forget the app, the passkeys and the recovery codes of the account with this address, for who has lost them all.

    Only for an operator, and only after the person has shown by other means who they are; the person is told. Raises
    NotFound.
    """
    user = db.session.scalars(select(User).where(User.email == accounts.stored_form(email))).first()
    if user is None:
        raise NotFound("There is no account with this address.")
    with transaction() as session:
        lock(user)
        if is_on(user):
            totp.remove(user)
            session.execute(delete(Passkey).where(Passkey.user_id == user.id))
            clear_up(user, actor)


def is_last(user: User) -> bool:
    """Tell whether the second factor would be off with one app or one passkey less."""
    return (totp.find(user) is not None) + _passkey_count(user) == 1


def require_long_password(user: User, password: Secret | None) -> None:
    """Raise InvalidInput unless a password may stand alone: the right one, and long enough. None needs none."""
    if not user.password_hash:
        return
    limit_tries(user)
    if password is None or not passwords.matches(password, user.password_hash):
        raise InvalidInput({"password": "Enter your present password"})
    if len(password.reveal()) < passwords.LEAST_LENGTH:
        raise InvalidInput(
            {
                "password": f"Choose a password of at least {passwords.LEAST_LENGTH} characters first. "
                "Without a second factor this one is too short"
            }
        )


def clear_up(user: User, actor: Actor) -> None:
    """Forget the recovery codes when nothing is left that they could stand for. Joins the act's transaction."""
    if not is_on(user):
        recovery_codes.remove(user)
        security_notices.tell(user, actor, "user:second_factor_off")


def limit_tries(user: User) -> None:
    """Count a try at the password of who is signed in. Raises RateLimited, LimiterAway."""
    try:
        state = parts().limits.hit(f"password:{user.id}", TRIES_PER_MINUTE)
    except StoreUnavailable as error:
        raise LimiterAway from error
    if not state.allowed:
        raise RateLimited(state.retry_after)


# ---- parts of the above


def _judge(user: User, text: str) -> WrongCode | TooManyCodes | None:
    digits, plain = _digits(text), recovery_codes.plain_form(text)
    if digits is not None:
        # Counted before the code is looked at: what is refused here tells nothing about the code.
        if _too_many(user):
            return TooManyCodes()
        return None if totp.take_code(user, digits) else WrongCode()
    return None if plain is not None and recovery_codes.take(user, plain) else WrongCode()


def _noted(user: User, text: str, actor: Actor) -> str:
    if _digits(text) is not None:
        return "totp"
    security_notices.tell(user, actor, "user:recovery_code_use", recovery_codes.left(user))
    return "recovery_code"


def _too_many(user: User) -> bool:
    return any(sign_in_attempts.wrong_codes(user, span) >= most for span, most in MOST_WRONG)


def _tell_of_wrong_codes(user: User, actor: Actor) -> None:
    span, most = MOST_WRONG[0]
    count = sign_in_attempts.wrong_codes(user, span)
    if count in (TOLD_AFTER, most):
        security_notices.tell(user, actor, "user:codes_refused", count)


def _digits(text: str) -> str | None:
    """Return the six digits of a code of the app, typed with spaces or not; None for anything else."""
    plain = "".join(text.split()) if len(text) < 100 else ""
    return plain if len(plain) == totp.DIGITS and plain.isascii() and plain.isdigit() else None


def _passkey_count(user: User) -> int:
    return db.session.scalar(select(func.count()).where(Passkey.user_id == user.id)) or 0
