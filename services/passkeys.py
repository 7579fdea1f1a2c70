"""Passkeys (WebAuthn): made, listed, renamed, deleted, and used to prove who somebody is.

A passkey is only made and taken with the person verified by their device, so it stands for both factors. Every
challenge is answered once, by the browser that asked for it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy import func, select

from extensions import db
from models import Passkey, User
from models.base import new_id, now, one_at_a_time, transaction
from services import second_factor, security_notices, sign_in_attempts
from services.actor import Actor
from services.errors import InvalidInput, InvalidRequest, NotFound, WrongCredentials
from services.parts import parts
from services.relying_party import RelyingParty
from services.secret import Secret

# The library brings parsers of certificates that weigh more than Flask, so a process loads it with its first passkey.
if TYPE_CHECKING:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

NAME_LENGTH = 60
MOST_PASSKEYS = 20
# What a challenge is for; the answer to one is no answer to another.
SIGN_IN, SECOND_STEP, PROOF, REGISTRATION = "sign_in", "second_step", "proof", "registration"

_ANSWER_LENGTH = 20_000
# WebAuthn level 3, section 5.8.3.
_ID_LENGTH = 1023
# The words of WebAuthn that the library knows.
_TRANSPORTS = {"usb", "nfc", "ble", "internal", "cable", "hybrid", "smart-card"}
_log = structlog.get_logger("passkeys")
Verified = TypeVar("Verified")


class PasskeyRefused(WrongCredentials):
    """An answer that proves nothing; never said why."""

    message = "That passkey was not accepted. Try again, or use another way."


def are_possible() -> bool:
    """Tell whether browsers allow passkeys under the portal's address."""
    return parts().relying_party is not None


def of_user(user: User) -> list[Passkey]:
    """Return a person's passkeys, the oldest first."""
    query = select(Passkey).where(Passkey.user_id == user.id)
    return list(db.session.scalars(query.order_by(Passkey.created_at, Passkey.id)))


def get(user: User, passkey_id: str) -> Passkey:
    """Return one of a person's own passkeys. Raises NotFound."""
    query = select(Passkey).where(Passkey.user_id == user.id, Passkey.id == passkey_id)
    passkey = db.session.scalars(query).first()
    if passkey is None:
        raise NotFound
    return passkey


# ---- making one


def begin_registration(user: User) -> tuple[Secret, str]:
    """Return a token for the browser and what it asks the device, as JSON. Raises InvalidRequest."""
    import webauthn
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    site = _site()
    options = webauthn.generate_registration_options(
        rp_id=site.id,
        rp_name=site.name,
        user_id=user.id.encode(),
        user_name=user.email,
        user_display_name=user.name or user.email,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=_descriptors(user),
    )
    token = _keep(sign_in_attempts.PASSKEY_REGISTRATION, user, REGISTRATION, options.challenge)
    return token, webauthn.options_to_json(options)


def register(user: User, token: Secret, answer: str, name: str, actor: Actor) -> tuple[Passkey, list[Secret]]:
    """Keep the passkey that a device has made.

    Returns it with recovery codes if it is the person's first second factor, else with none. Raises InvalidInput.
    """
    import webauthn

    name = _checked_name(name)
    challenge = _challenge(sign_in_attempts.PASSKEY_REGISTRATION, token, REGISTRATION, user)
    site = _site()
    made = _verified(
        lambda: webauthn.verify_registration_response(
            credential=_read(answer),
            expected_challenge=challenge,
            expected_rp_id=site.id,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    )
    with transaction() as session:
        one_at_a_time("passkey:register")
        second_factor.lock(user)
        was_on = second_factor.is_on(user)
        _refuse_another(user, made.credential_id)
        passkey = Passkey(
            id=new_id("pk"),
            user_id=user.id,
            credential_id=made.credential_id,
            public_key=made.credential_public_key,
            sign_count=made.sign_count,
            transports=_transports_in(_read(answer)),
            backed_up=made.credential_backed_up,
            name=name,
            created_at=now(),
        )
        session.add(passkey)
        session.flush()
        security_notices.tell(user, actor, "user:passkey_add", name, details={"passkey": name})
        return passkey, second_factor.first_codes(user, actor, was_on=was_on, how="a passkey")


def rename(user: User, passkey_id: str, name: str, actor: Actor) -> None:
    """Give a passkey another name. Raises NotFound, InvalidInput."""
    name = _checked_name(name)
    with transaction():
        passkey = get(user, passkey_id)
        before, passkey.name = passkey.name, name
        security_notices.tell(user, actor, "user:passkey_rename", details={"from": before, "to": name})


def delete(user: User, passkey_id: str, actor: Actor, *, password: Secret | None) -> None:
    """Forget a passkey: it opens nothing any more.

    Raises NotFound, and InvalidInput when that would leave a password too short to stand alone.
    """
    with transaction() as session:
        second_factor.lock(user)
        passkey = get(user, passkey_id)
        if second_factor.is_last(user):
            second_factor.require_long_password(user, password)
        session.delete(passkey)
        session.flush()
        security_notices.tell(user, actor, "user:passkey_delete", passkey.name, details={"passkey": passkey.name})
        second_factor.clear_up(user, actor)


# ---- using one


def begin_use(purpose: str, user: User | None) -> tuple[Secret, str]:
    """Return a token for the browser and what it asks the device, as JSON; without a user, for any passkey of ours.

    Raises InvalidRequest.
    """
    import webauthn
    from webauthn.helpers.structs import UserVerificationRequirement

    options = webauthn.generate_authentication_options(
        rp_id=_site().id,
        allow_credentials=_descriptors(user) if user is not None else None,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    token = _keep(sign_in_attempts.PASSKEY, user, purpose, options.challenge)
    return token, webauthn.options_to_json(options)


def use(
    purpose: str, token: Secret | None, answer: str, user: User | None, actor_from: Callable[[User], Actor]
) -> User:
    """Return whose passkey has answered the challenge; with ``user``, only theirs will do.

    ``actor_from`` makes the actor for the log once it is known who it is. Raises PasskeyRefused.
    """
    try:
        challenge = _challenge(sign_in_attempts.PASSKEY, token, purpose, user)
        given = _read(answer)
        credential_id = _decoded(given["rawId"])
        handle = given["response"].get("userHandle")
        passkey = _find(credential_id)
        wanted = passkey.user_id if passkey is not None and user is None else user.id if user is not None else None
        if passkey is None or passkey.user_id != wanted or (handle and _decoded(handle) != passkey.user_id.encode()):
            raise PasskeyRefused
    except (InvalidInput, KeyError, TypeError, ValueError, AttributeError):
        raise PasskeyRefused from None
    return _take(passkey, challenge, given, actor_from)


def _take(passkey: Passkey, challenge: bytes, given: dict[str, Any], actor_from: Callable[[User], Actor]) -> User:
    import webauthn

    site, public_key = _site(), passkey.public_key
    try:
        found = _verified(
            lambda: webauthn.verify_authentication_response(
                credential=given,
                expected_challenge=challenge,
                expected_rp_id=site.id,
                expected_origin=site.origin,
                credential_public_key=public_key,
                # We look at the count ourselves, for a copy is told of.
                credential_current_sign_count=0,
                require_user_verification=True,
            )
        )
    except InvalidInput:
        raise PasskeyRefused from None
    with transaction() as session:
        held = session.scalars(select(Passkey).where(Passkey.id == passkey.id).with_for_update()).first()
        if held is None:
            raise PasskeyRefused
        user = session.get_one(User, held.user_id)
        copied = max(found.new_sign_count, held.sign_count) > 0 and found.new_sign_count <= held.sign_count
        if copied:
            details = {"passkey": held.name, "count": found.new_sign_count, "known": held.sign_count}
            security_notices.tell(user, actor_from(user), "user:passkey_copied", held.name, details=details)
        else:
            held.sign_count, held.last_used_at = found.new_sign_count, now()
            held.backed_up = found.credential_backed_up
            session.flush()
    if copied:
        raise PasskeyRefused
    return user


# ---- parts of the above


def _site() -> RelyingParty:
    site = parts().relying_party
    if site is None:
        raise InvalidRequest("Passkeys need the portal to be reached by HTTPS, or as localhost.")
    return site


def _keep(kind: str, user: User | None, purpose: str, challenge: bytes) -> Secret:
    details = {"purpose": purpose, "challenge": _encoded(challenge)}
    return sign_in_attempts.begin(kind, user_id=user.id if user else None, details=details)


def _challenge(kind: str, token: Secret | None, purpose: str, user: User | None) -> bytes:
    """Raises InvalidInput when there is none, or not for this."""
    user_id = user.id if user is not None else None
    found = sign_in_attempts.take_challenge(token, kind, purpose, user_id) if token else None
    if found is None:
        raise InvalidInput({"answer": "This took too long. Try again"})
    return _decoded(found)


def _verified(verify: Callable[[], Verified]) -> Verified:
    """Raises InvalidInput for whatever is wrong with an answer."""
    try:
        return verify()
    except Exception as error:
        # The library reads what a client sent by several parsers, and each has errors of its own.
        _log.info("passkey refused", reason=type(error).__name__)
        raise InvalidInput({"answer": "The passkey was not accepted. Try again"}) from None


def _read(answer: str) -> dict[str, Any]:
    """Raises InvalidInput for what is no answer of a browser."""
    try:
        found = json.loads(answer) if len(answer) <= _ANSWER_LENGTH else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("response"), dict):
        raise InvalidInput({"answer": "Your browser did not send a passkey. Try again"})
    return found


def _transports_in(answer: dict[str, Any]) -> list[str]:
    told = answer["response"].get("transports")
    told = told if isinstance(told, list) else []
    return [word for word in told if isinstance(word, str) and word in _TRANSPORTS]


def _find(credential_id: bytes) -> Passkey | None:
    return db.session.scalars(select(Passkey).where(Passkey.credential_id == credential_id)).first()


def _refuse_another(user: User, credential_id: bytes) -> None:
    if len(credential_id) > _ID_LENGTH:
        raise InvalidInput({"answer": "This passkey has an id that is too long"})
    if _find(credential_id) is not None:
        raise InvalidInput({"answer": "This passkey is known already"})
    if (db.session.scalar(select(func.count()).where(Passkey.user_id == user.id)) or 0) >= MOST_PASSKEYS:
        raise InvalidInput({"answer": f"You have {MOST_PASSKEYS} passkeys, and there is no room for more"})


def _checked_name(name: str) -> str:
    plain = " ".join(name.split())
    if not plain:
        raise InvalidInput({"name": "Enter a name for the passkey"})
    if len(plain) > NAME_LENGTH:
        raise InvalidInput({"name": f"Use at most {NAME_LENGTH} characters"})
    return plain


def _descriptors(user: User) -> list[PublicKeyCredentialDescriptor]:
    from webauthn.helpers.structs import AuthenticatorTransport, PublicKeyCredentialDescriptor

    return [
        PublicKeyCredentialDescriptor(
            id=passkey.credential_id,
            transports=[AuthenticatorTransport(word) for word in passkey.transports if word in _TRANSPORTS],
        )
        for passkey in of_user(user)
    ]


def _encoded(challenge: bytes) -> str:
    return base64.urlsafe_b64encode(challenge).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
