"""The steps of signing in: a first factor, a second one if the person has one, then a session.

Every way in ends here: a password, a passkey alone, an identity provider. Between the steps the browser holds the
token of an attempt, which opens nothing but the question for the second factor.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select

from extensions import db
from models import AuditEvent, SignInAttempt, User
from models.base import now, transaction
from services import accounts, passkeys, second_factor, security_notices, sessions, sign_in_attempts, workspaces
from services.actor import Actor
from services.errors import WrongCredentials
from services.passkeys import PasskeyRefused
from services.second_factor import Standing
from services.secret import Secret
from services.sign_in_attempts import SECOND_FACTOR

# After so many wrong codes a sign-in begins again, with its first factor.
MOST_TRIES = 5
# A place that was not seen for so long is new again. Only the last entries of the log are looked at.
_KNOWN_FOR = timedelta(days=90)
_ENTRIES_LOOKED_AT = 5_000


class SignInOver(WrongCredentials):
    """The attempt is unknown, too old or used up: the sign-in begins again."""

    message = "This sign-in took too long or was refused too often. Sign in again."


@dataclass(frozen=True, slots=True)
class Step:
    """Where a sign-in has come to: a token of a session, or of an attempt that waits for the second factor."""

    session: Secret | None = None
    attempt: Secret | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An attempt that waits for the second factor."""

    user: User
    standing: Standing


def with_password(email: str, password: Secret, *, remembered: bool, address: str | None, client: str | None) -> Step:
    """Take the first step with an e-mail address and a password. Raises WrongCredentials."""
    user = accounts.check_password(email, password)
    checked = user.password_hash
    with transaction():
        second_factor.lock(user)
        if user.password_hash != checked:
            # It was changed while we looked at it, and the sessions of the old one have just been ended.
            raise WrongCredentials
        return first_factor_done(user, methods=["password"], remembered=remembered, address=address, client=client)


def first_factor_done(
    user: User,
    *,
    methods: Sequence[str],
    remembered: bool,
    address: str | None,
    client: str | None,
    is_enough: bool = False,
) -> Step:
    """Go on for whoever has shown a first factor: to the second one if they have one, else into a session.

    ``is_enough`` means that a second one was shown elsewhere, to whom the operator trusts.
    Raises WrongCredentials for an account that is closed.
    """
    with transaction():
        second_factor.lock(user)
        if user.closed_at is not None:
            raise WrongCredentials
        if second_factor.is_on(user) and not is_enough:
            attempt = sign_in_attempts.begin(SECOND_FACTOR, user_id=user.id, methods=methods, remembered=remembered)
            return Step(attempt=attempt)
        return Step(session=_begin_session(user, methods, remembered, address, client))


def waiting(token: Secret | None) -> Waiting:
    """Return whom an attempt is about and what they may answer with. Raises SignInOver."""
    found = _attempt(token)
    user = db.session.get_one(User, found.user_id)
    return Waiting(user, second_factor.standing(user))


def with_code(token: Secret | None, code: str, *, address: str | None, client: str | None) -> Secret:
    """Finish with a code of the app or a recovery code; return the session's token.

    Raises WrongCode, TooManyCodes, and SignInOver.
    """
    attempt_id, user = _attempt(token).id, waiting(token).user
    actor = _actor(user, address, client)
    return second_factor.take(
        user,
        code,
        actor,
        then=lambda method: _finish(attempt_id, user, method, address, client),
        note_wrong=lambda: _note_wrong(attempt_id),
    )


def passkey_options(token: Secret | None) -> tuple[Secret, str]:
    """Return a token and what the browser asks the device, for the second step. Raises SignInOver, InvalidRequest."""
    return passkeys.begin_use(passkeys.SECOND_STEP, waiting(token).user)


def with_passkey_second(
    token: Secret | None, challenge: Secret | None, answer: str, *, address: str | None, client: str | None
) -> Secret:
    """Finish with a passkey of the person who has shown the first factor; return the session's token.

    Raises PasskeyRefused, and SignInOver.
    """
    attempt_id, user = _attempt(token).id, waiting(token).user
    passkeys.use(passkeys.SECOND_STEP, challenge, answer, user, lambda found: _actor(found, address, client))
    with transaction():
        second_factor.lock(user)
        return _finish(attempt_id, user, "passkey", address, client)


def with_passkey(
    challenge: Secret | None, answer: str, *, remembered: bool, address: str | None, client: str | None
) -> Secret:
    """Sign in with a passkey alone, which stands for both factors; return the session's token.

    Raises PasskeyRefused, also for an account that is closed.
    """
    user = passkeys.use(passkeys.SIGN_IN, challenge, answer, None, lambda found: _actor(found, address, client))
    with transaction():
        second_factor.lock(user)
        if user.closed_at is not None:
            raise PasskeyRefused
        return _begin_session(user, ["passkey"], remembered, address, client)


# ---- parts of the above


def _attempt(token: Secret | None) -> SignInAttempt:
    found = sign_in_attempts.find(token, SECOND_FACTOR) if token is not None else None
    if found is None or found.tries >= MOST_TRIES:
        raise SignInOver
    return found


def _note_wrong(attempt_id: str) -> None:
    attempt = db.session.get(SignInAttempt, attempt_id)
    if attempt is not None:
        attempt.tries += 1
        db.session.flush()


def _finish(attempt_id: str, user: User, method: str, address: str | None, client: str | None) -> Secret:
    """End the attempt and begin the session. Of two answers at once only one finds the attempt."""
    taken = db.session.execute(
        delete(SignInAttempt)
        .where(SignInAttempt.id == attempt_id, SignInAttempt.expires_at > now(), SignInAttempt.tries < MOST_TRIES)
        .returning(SignInAttempt.methods, SignInAttempt.remembered, SignInAttempt.created_at)
    ).first()
    if taken is None or user.closed_at is not None:
        raise SignInOver
    methods, remembered, begun_at = taken
    if "password" in methods and user.password_changed_at is not None and user.password_changed_at > begun_at:
        raise SignInOver
    return _begin_session(user, [*methods, method], remembered, address, client)


def _begin_session(
    user: User, methods: Sequence[str], remembered: bool, address: str | None, client: str | None
) -> Secret:
    is_new = user.last_sign_in_at is not None and not _was_seen(user, address, client)
    token = sessions.begin(user, methods=methods, address=address, client=client, remembered=remembered)
    if is_new:
        security_notices.send(user, _actor(user, address, client), "user:new_sign_in")
    return token


def _was_seen(user: User, address: str | None, client: str | None) -> bool:
    """Tell whether the person has signed in lately from this network and with this browser."""
    workspace = workspaces.first_of(user)
    if workspace is None:
        return True
    last = db.session.scalar(select(func.max(AuditEvent.number)).where(AuditEvent.workspace_id == workspace.id)) or 0
    query = select(AuditEvent.address).where(
        AuditEvent.workspace_id == workspace.id,
        AuditEvent.number > last - _ENTRIES_LOOKED_AT,
        AuditEvent.actor_id == user.id,
        AuditEvent.action == "user:sign_in",
        AuditEvent.at > now() - _KNOWN_FOR,
        AuditEvent.client == client if client is not None else AuditEvent.client.is_(None),
    )
    return _network(address) in {_network(seen) for seen in db.session.scalars(query)}


def _network(address: str | None) -> str:
    """Return what stays the same of an address: of IPv6 the first half, for devices change the second."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def _actor(user: User, address: str | None, client: str | None) -> Actor:
    return Actor(kind="user", name=user.email, id=user.id, address=address, client=client)
