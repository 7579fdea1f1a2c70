"""Who a person is at the operator's identity provider, and what that lets them do here.

A person is known by issuer and subject, never by an address: whoever comes for the first time with the address of an
account signs in to that account once, and then the two belong together.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select

from extensions import db
from models import ExternalIdentity, LoginSession, Passkey, SignInAttempt, User
from models.base import new_id, now, one_at_a_time, transaction
from services import account_mail, accounts, sign_in_attempts
from services.actor import Actor
from services.errors import InvalidInput, NotFound, WrongCredentials
from services.identity_claims import Claims, IdentityRefused
from services.parts import parts
from services.secret import Secret

if TYPE_CHECKING:
    from services.oidc import OidcProvider

_BEGUN, _OFFERED = "oidc", "oidc_link"


@dataclass(frozen=True, slots=True)
class Begun:
    """A way to the provider: the token for the browser to keep, and where it goes."""

    token: Secret
    url: str


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the provider that has come back. ``connect_to`` is the id of the person who wants it connected.

    ``proof_of`` is the id of the session that has to be proved, and ``carried`` the form that waits for it, sealed.
    """

    begun_at: datetime
    next_path: str | None
    connect_to: str | None
    proof_of: str | None
    carried: str | None
    state: str
    nonce: str
    verifier: str


class AddressInUse(Exception):
    """An account has the address already. ``token`` lets the person connect the two after signing in to it."""

    def __init__(self, token: Secret) -> None:
        self.token = token


def provider() -> OidcProvider:
    """Return the identity provider. Raises NotFound when the operator has set none."""
    found = parts().oidc
    if found is None:
        raise NotFound
    return found


# ---- there and back


def begin(*, next_path: str | None, connect_to: User | None = None) -> Begun:
    """Begin a way to the provider. Raises NotFound, ProviderAway."""
    return _begin(connect_to, {"next": next_path}, again=connect_to is not None)


def begin_proof(login_session: LoginSession, *, next_path: str | None, carried: str | None) -> Begun:
    """Begin a way to the provider for who is signed in and has to prove it again; ``carried`` is their sealed form.

    Raises NotFound, ProviderAway.
    """
    details = {"next": next_path, "proof_of": login_session.id, "carried": carried}
    return _begin(login_session.user, details, again=True, dated=True)


def come_back(token: Secret) -> Way:
    """Return the way that was begun, once. Raises IdentityRefused when this browser has begun none, or long ago."""
    with transaction() as session:
        begun = session.execute(
            delete(SignInAttempt)
            .where(SignInAttempt.token_digest == _digest(token), SignInAttempt.kind == _BEGUN)
            .returning(SignInAttempt.user_id, SignInAttempt.details, SignInAttempt.created_at, SignInAttempt.expires_at)
        ).first()
    if begun is None or begun.expires_at <= now():
        raise IdentityRefused
    told = begun.details
    proof_of = told.get("proof_of")
    return Way(
        begun_at=begun.created_at,
        next_path=told["next"],
        connect_to=None if proof_of else begun.user_id,
        proof_of=proof_of,
        carried=told.get("carried"),
        state=told["state"],
        nonce=told["nonce"],
        verifier=told["verifier"],
    )


def claims_of(way: Way, answer: Mapping[str, str]) -> Claims:
    """Return who the provider says has come back. Raises IdentityRefused for an answer to another way, ProviderAway."""
    if not hmac.compare_digest(answer.get("state", "").encode("utf-8", "replace"), way.state.encode()):
        raise IdentityRefused
    # RFC 9207: the answer may say whose it is, and then it has to be this provider's.
    if answer.get("iss", provider().settings.issuer) != provider().settings.issuer or "code" not in answer:
        raise IdentityRefused
    return provider().claims(answer["code"], nonce=way.nonce, verifier=way.verifier)


def person_of(claims: Claims, *, address: str | None, client: str | None) -> User:
    """Return whose account the identity opens, made now for who has none.

    Raises IdentityRefused in words, WrongCredentials for a closed account, and AddressInUse.
    """
    with transaction() as session:
        one_at_a_time("identity:use")
        identity = _known(claims)
        if identity is not None:
            identity.last_used_at = now()
            found = session.get_one(User, identity.user_id)
        else:
            found = _first_time(claims, address, client)
        if found.closed_at is not None:
            raise WrongCredentials
        if _known(claims) is not None:
            return found
        offer = _note(_OFFERED, found.id, {"subject": claims.subject, "issuer": claims.issuer})
    # The offer is kept.
    raise AddressInUse(offer)


def _first_time(claims: Claims, address: str | None, client: str | None) -> User:
    """Return the account that has the address of a new identity; it is connected unless its owner must be asked."""
    if claims.email is None:
        raise IdentityRefused(
            f"{provider().name} has not verified your e-mail address. Verify it there, then sign in again."
        )
    email = _checked_address(claims.email)
    user = accounts.find(email)
    if user is not None and not accounts.is_unconfirmed(user):
        if provider().settings.trusted and user.closed_at is None:
            _connect(user, claims, accounts.actor_of(user, address, client))
        return user
    _refuse_unless_welcome(email)
    user = accounts.open_account(email, "", address=address, client=client)
    _add(user, claims)
    return user


def _checked_address(email: str) -> str:
    try:
        return accounts.checked_address(email)
    except InvalidInput:
        raise IdentityRefused("The e-mail address that the provider tells cannot be used here.") from None


def _refuse_unless_welcome(email: str) -> None:
    domains = provider().settings.domains
    if domains and email.rpartition("@")[2] not in domains:
        raise IdentityRefused("Addresses of your domain cannot make an account here. Ask the operator of this portal.")
    # Domains that the operator has named are an invitation.
    if not domains and not parts().sign_up_open:
        raise IdentityRefused(
            "Sign-up is closed. Ask the operator of this portal for an account, or for an invitation."
        )


# ---- connecting


def connect(user: User, claims: Claims, actor: Actor) -> None:
    """Let the identity sign in to the person's account. Raises InvalidInput when it belongs to somebody already."""
    with transaction():
        one_at_a_time("identity:use")
        if _known(claims) is not None:
            raise InvalidInput({"identity": "This identity is connected to an account already."})
        _connect(user, claims, actor)


def offered(user: User, token: Secret) -> bool:
    """Tell whether this link lets the person connect the identity that came with their address."""
    return _offer(user, token) is not None


def accept(user: User, token: Secret, actor: Actor) -> None:
    """Connect it. Raises IdentityRefused, InvalidInput."""
    with transaction() as session:
        offer = _offer(user, token)
        if offer is None:
            raise IdentityRefused
        claims = Claims(offer.details["issuer"], offer.details["subject"], None)
        session.delete(offer)
        connect(user, claims, actor)


def of(user: User) -> list[ExternalIdentity]:
    """Return the identities that sign in to an account, the oldest in front."""
    query = select(ExternalIdentity).where(ExternalIdentity.user_id == user.id)
    return list(db.session.scalars(query.order_by(ExternalIdentity.created_at, ExternalIdentity.id)))


def signs_in(user: User, claims: Claims) -> bool:
    """Tell whether the identity is one that signs in to this account."""
    known = _known(claims)
    return known is not None and known.user_id == user.id


def can_prove(user: User) -> bool:
    """Tell whether the operator's identity provider knows the person."""
    found = parts().oidc
    return found is not None and any(identity.issuer == found.settings.issuer for identity in of(user))


def may_remove(user: User) -> bool:
    """Tell whether another way into the account remains: a password, a passkey, or another identity."""
    passkey = db.session.scalars(select(Passkey.id).where(Passkey.user_id == user.id).limit(1)).first()
    return bool(user.password_hash) or passkey is not None or len(of(user)) > 1


def remove(user: User, identity_id: str, actor: Actor) -> None:
    """Let an identity sign in no more. Raises NotFound, and InvalidInput when it is the only way in."""
    with transaction() as session:
        session.refresh(user, with_for_update=True)
        identity = session.get(ExternalIdentity, identity_id)
        if identity is None or identity.user_id != user.id:
            raise NotFound
        if not may_remove(user):
            raise InvalidInput({"identity": "It is the only way into your account. Set a password first."})
        session.delete(identity)
        accounts.record(user, actor, "user:remove_identity", issuer=identity.issuer)
        account_mail.send(user.email, account_mail.identity_removed(_title(identity.issuer)), actor)


# ---- parts of the above


def _connect(user: User, claims: Claims, actor: Actor) -> None:
    _add(user, claims)
    accounts.record(user, actor, "user:add_identity", issuer=claims.issuer)
    account_mail.send(user.email, account_mail.identity_linked(_title(claims.issuer)), actor)


def _add(user: User, claims: Claims) -> None:
    db.session.add(
        ExternalIdentity(
            id=new_id("ext"), user_id=user.id, issuer=claims.issuer, subject=claims.subject, created_at=now()
        )
    )
    db.session.flush()


def _known(claims: Claims) -> ExternalIdentity | None:
    query = select(ExternalIdentity).where(
        ExternalIdentity.issuer == claims.issuer, ExternalIdentity.subject == claims.subject
    )
    return db.session.scalars(query).first()


def _offer(user: User, token: Secret) -> SignInAttempt | None:
    found = sign_in_attempts.find(token, _OFFERED)
    return found if found is not None and found.user_id == user.id else None


def _begin(user: User | None, details: Mapping[str, Any], *, again: bool, dated: bool = False) -> Begun:
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    url = provider().authorization_url(state=state, nonce=nonce, verifier=verifier, again=again, dated=dated)
    kept = {**details, "state": state, "nonce": nonce, "verifier": verifier}
    return Begun(_note(_BEGUN, user.id if user else None, kept), url)


def _note(kind: str, user_id: str | None, details: Mapping[str, Any]) -> Secret:
    return sign_in_attempts.begin(kind, user_id=user_id, details=details)


def _title(issuer: str) -> str:
    found = parts().oidc
    return found.name if found is not None and found.settings.issuer == issuer else issuer


def _digest(token: Secret) -> bytes:
    return parts().attempt_digests.digest(token.reveal())
