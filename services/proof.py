"""Proving again who is there, before a delicate act: a session may have been left open, or taken over.

Whoever has a second factor shows it; whoever has none, the password. Who has neither proves it at the identity provider
that signs them in, or signs in again.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from extensions import db
from models import LoginSession, SignInAttempt, User
from models.base import new_id, now
from services import external_identities, passkeys, passwords, second_factor, sessions
from services.actor import Actor
from services.errors import NotFound, WrongCredentials
from services.external_identities import Begun, Way
from services.identity_claims import LEEWAY_SECONDS, Claims
from services.secret import Secret
from services.sign_in_attempts import PROOF

HOLDS_FOR = timedelta(minutes=15)
_CLOCK_ERROR = timedelta(minutes=1)


class WrongPassword(WrongCredentials):
    """Not the password of who is signed in."""

    message = "That is not your password."


class NotProvedThere(WrongCredentials):
    """What the identity provider says is no proof of who is signed in here, now."""

    message = "The identity provider did not confirm that it is you, now. Try again."


def is_recent(login_session: LoginSession) -> bool:
    """Tell whether the last proof, at sign-in or since, still holds for delicate acts."""
    proved_at = login_session.proved_at or login_session.created_at
    # A proof of the future was noted by a clock that has been put right since.
    return -_CLOCK_ERROR <= now() - proved_at < HOLDS_FOR


def with_password(login_session: LoginSession, password: Secret) -> Secret:
    """Take the password of who has no second factor; return the session's new token.

    Raises WrongPassword, RateLimited, LimiterAway.
    """
    user = login_session.user
    second_factor.limit_tries(user)
    right = passwords.matches(password, user.password_hash or None)
    if not right or second_factor.is_on(user):
        raise WrongPassword
    return sessions.note_proof(login_session, "password")


def with_code(login_session: LoginSession, code: str, actor: Actor) -> Secret:
    """Take a code of the app or a recovery code; return the session's new token. Raises WrongCode, TooManyCodes."""
    user_id = login_session.user_id
    return second_factor.take(
        login_session.user,
        code,
        actor,
        then=lambda method: sessions.note_proof(login_session, method),
        note_wrong=lambda: _note_wrong(user_id),
    )


def passkey_options(login_session: LoginSession) -> tuple[Secret, str]:
    """Return a token and what the browser asks the device. Raises InvalidRequest."""
    return passkeys.begin_use(passkeys.PROOF, login_session.user)


def with_passkey(login_session: LoginSession, challenge: Secret | None, answer: str, actor: Actor) -> Secret:
    """Take a passkey of who is signed in; return the session's new token. Raises PasskeyRefused."""
    passkeys.use(passkeys.PROOF, challenge, answer, login_session.user, lambda _user: actor)
    return sessions.note_proof(login_session, "passkey")


def is_at_provider(user: User) -> bool:
    """Tell whether the identity provider is where the person proves who they are, having nothing else to show here."""
    return not user.password_hash and not second_factor.is_on(user) and external_identities.can_prove(user)


def begin_at_provider(login_session: LoginSession, *, next_path: str | None, carried: str | None) -> Begun:
    """Begin the way to the identity provider. Raises NotFound for who has another proof to show, ProviderAway."""
    if not is_at_provider(login_session.user):
        raise NotFound
    return external_identities.begin_proof(login_session, next_path=next_path, carried=carried)


def with_provider(login_session: LoginSession, way: Way, claims: Claims) -> Secret:
    """Take what the identity provider says; return the session's new token.

    The person must be the one who is signed in, and must have proved it there after they were sent: a provider may
    overlook that it was asked to (OpenID Connect Core 1.0, 3.1.2.1). Raises NotProvedThere.
    """
    user = login_session.user
    if way.proof_of != login_session.id or not is_at_provider(user) or not external_identities.signs_in(user, claims):
        raise NotProvedThere
    proved_at, leeway = claims.authenticated_at, LEEWAY_SECONDS
    if proved_at is None or not way.begun_at.timestamp() - leeway <= proved_at <= now().timestamp() + leeway:
        raise NotProvedThere
    return sessions.note_proof(login_session, "oidc")


def _note_wrong(user_id: str) -> None:
    db.session.add(
        SignInAttempt(
            id=new_id("att"),
            token_digest=secrets.token_bytes(32),
            kind=PROOF,
            user_id=user_id,
            methods=[],
            remembered=False,
            details={},
            tries=1,
            created_at=now(),
            expires_at=now(),
        )
    )
    db.session.flush()
