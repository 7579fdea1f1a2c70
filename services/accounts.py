"""People: sign-up, sign-in, and the first operator."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import email_validator
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import and_, select, update

from extensions import db
from models import SetupLink, User, Workspace
from models.base import delete_some, new_id, now, one_at_a_time, transaction
from services import audit, mailed_links, passwords, session_list, sessions, workspaces
from services.actor import Actor
from services.errors import InvalidInput, SetUpLinkUsed, WrongCredentials
from services.parts import parts
from services.permissions import Role
from services.secret import Secret

# Small teams do give people addresses such as name@office.local.
email_validator.SPECIAL_USE_DOMAIN_NAMES.remove("local")

_NOT_CREATED = "This account could not be created. If you have one already, sign in"

# An account that was asked for and never confirmed is forgotten after this time; its link ends sooner.
_UNCONFIRMED_KEPT = timedelta(days=2)


def sign_up(email: str, password: Secret, *, invited: bool, address: str | None, client: str | None) -> Secret:
    """Make an account for somebody whose address is proved: they opened the link of an invitation sent to it.

    Returns the token of a session. Works while sign-up is closed. Everybody else asks by ``services.sign_up``.
    Raises InvalidInput.
    """
    if not invited:
        raise ValueError("an address has to be proved before there is an account")
    email = checked_address(email)
    password_hash = hash_of_new(password, email)
    with transaction():
        user = open_account(email, password_hash, address=address, client=client)
        return sessions.begin(user, methods=["password"], address=address, client=client)


def create_user(email: str, password: Secret, *, is_operator: bool, actor: Actor) -> Workspace:
    """Make a user and their workspace without signing in, as the command does. Raises InvalidInput."""
    email = _checked(email, password)
    password_hash = passwords.hash_password(password)
    with transaction():
        user = _add_user(email, password_hash, is_operator=is_operator)
        workspace = workspaces.create(_name_from(user.email), owner=user, actor=actor)
        if is_operator:
            _adopt_ownerless_workspaces(user, actor)
        return workspace


def check_password(email: str, password: Secret) -> User:
    """Return whose address and password these are: the first factor, and no session yet.

    Raises WrongCredentials, with the same words and after the same time for a wrong password, an unknown address, an
    account without a password, and one that is closed.
    """
    user = find(email)
    right = passwords.matches(password, user.password_hash if user else None)
    if user is None or not right or user.closed_at is not None:
        raise WrongCredentials
    if passwords.is_outdated(user.password_hash):
        _hash_again(user, password)
    return user


def _hash_again(user: User, password: Secret) -> None:
    """Keep the password under today's parameters, unless it was changed meanwhile."""
    outdated, fresh = user.password_hash, passwords.hash_password(password)
    with transaction() as session:
        session.execute(
            update(User).where(User.id == user.id, User.password_hash == outdated).values(password_hash=fresh)
        )


# ---- an account whose address is proved by the link it is made with


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked address and a hashed password: hashing takes too long to be done while others wait."""

    email: str
    password_hash: str


def prepared(email: str, password: Secret) -> Prepared:
    """Check and hash what somebody wants to sign in with. Raises InvalidInput."""
    email = _checked(email, password)
    return Prepared(email, passwords.hash_password(password))


def add_prepared(wish: Prepared, *, time_zone: str) -> User:
    """Make a user with a confirmed address and no workspace, as part of an act. Raises InvalidInput."""
    user = _add_user(wish.email, wish.password_hash, is_operator=False)
    user.email_confirmed_at = now()
    user.time_zone = time_zone
    db.session.flush()
    return user


# ---- the first operator


def set_up_token() -> Secret | None:
    """Return the token of the set-up link while no operator was made with it; the same at every start.

    Only a nonce is stored; without the signing key a copy of the database does not make the link.
    """
    with transaction() as session:
        one_at_a_time("operator:create")
        link = session.get(SetupLink, 1)
        if link is None:
            operator = session.scalars(select(User.id).where(User.is_operator)).first()
            nonce = secrets.token_hex(16) if operator is None else None
            link = SetupLink(id=1, nonce=nonce, created_at=now(), used_at=None if nonce else now())
            session.add(link)
        return _token_of(link)


def set_up_open(token: Secret) -> bool:
    """Tell whether this is the set-up link and it has not been used."""
    link = db.session.get(SetupLink, 1)
    expected = _token_of(link) if link else None
    return expected is not None and expected == token


def create_operator(token: Secret, email: str, password: Secret, *, address: str | None, client: str | None) -> Secret:
    """Use the set-up link: make the operator and sign in. Returns the session token.

    The operator becomes the owner of the demo workspace when there is one. Raises SetUpLinkUsed, InvalidInput.
    """
    if not set_up_open(token):
        raise SetUpLinkUsed
    email = _checked(email, password)
    password_hash = passwords.hash_password(password)
    with transaction():
        one_at_a_time("operator:create")
        if not set_up_open(token):
            raise SetUpLinkUsed
        operator = _add_user(email, password_hash, is_operator=True)
        add_workspace_of(operator, address=address, client=client)
        _adopt_ownerless_workspaces(operator, actor_of(operator, address, client))
        return sessions.begin(operator, methods=["password"], address=address, client=client)


def _token_of(link: SetupLink) -> Secret | None:
    if link.nonce is None:
        return None
    return Secret(base64.urlsafe_b64encode(parts().setup_digests.digest(link.nonce)).decode().rstrip("="))


def _close_set_up_link() -> None:
    """However the first operator came to be, the link makes no second one."""
    link = db.session.get(SetupLink, 1)
    if link is not None and link.nonce is not None:
        link.nonce, link.used_at = None, now()


def _adopt_ownerless_workspaces(operator: User, actor: Actor) -> None:
    """Open the demo workspace, which was made before anybody was there, to the operator."""
    for workspace in workspaces.without_members():
        workspaces.add_member(workspace, operator, Role.OWNER, actor=actor)


# ---- parts of the above


def checked_address(email: str) -> str:
    """Return the e-mail address in its stored form. Raises InvalidInput."""
    plain = stored_form(email)
    if fault := _address_fault(plain):
        raise InvalidInput({"email": fault})
    return plain


def password_fault(
    password: Secret, email: str, *, second_factor: bool = False, workspace_names: Iterable[str] = ()
) -> str | None:
    """Return the sentence that says why this cannot be the password of this address, or None."""
    words = (email, *workspace_names, *parts().own_words)
    return passwords.fault_of(password, second_factor=second_factor, words=words)


def hash_of_new(
    password: Secret, email: str, *, second_factor: bool = False, workspace_names: Iterable[str] = ()
) -> str:
    """Return the hash of a new password for this address. Raises InvalidInput."""
    fault = password_fault(password, email, second_factor=second_factor, workspace_names=workspace_names)
    if fault is not None:
        raise InvalidInput({"password": fault})
    return passwords.hash_password(password)


def _checked(email: str, password: Secret) -> str:
    """Return the address in its stored form; all that is wrong is told at once. Raises InvalidInput."""
    plain = stored_form(email)
    faults = {"email": _address_fault(plain), "password": password_fault(password, plain)}
    if any(faults.values()):
        raise InvalidInput({name: fault for name, fault in faults.items() if fault})
    return plain


def _address_fault(plain: str) -> str | None:
    if not plain:
        return "Enter your e-mail address"
    return None if _is_address(plain) else "Enter an e-mail address like name@example.com"


def stored_form(email: str) -> str:
    """Return the one spelling under which an address is stored and looked up, whatever it was typed like."""
    plain = email.strip()
    with suppress(EmailNotValidError):
        plain = validate_email(plain, check_deliverability=False, test_environment=True).normalized
    return plain.lower()


def _is_address(plain: str) -> bool:
    try:
        validate_email(plain, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


def find(email: str) -> User | None:
    """Return the account of an address, confirmed or not."""
    return db.session.scalars(select(User).where(User.email == stored_form(email))).first()


def is_unconfirmed(user: User) -> bool:
    """Tell whether an account was only asked for: it has no password, no workspace, and nobody may use it."""
    return user.email_confirmed_at is None and not user.password_hash


def add_unconfirmed(email: str) -> User:
    """Note that somebody asked for an account. It keeps nobody from anything. Joins the act's transaction."""
    with transaction() as session:
        user = User(id=new_id("usr"), email=email, password_hash="", is_operator=False, created_at=now())
        session.add(user)
        session.flush()
    return user


def open_account(email: str, password_hash: str, *, address: str | None, client: str | None) -> User:
    """Make the account of a proved address, with a workspace on the first plan. Joins the act's transaction.

    Raises InvalidInput when the address has one.
    """
    with transaction():
        user = _add_user(email, password_hash, is_operator=False)
        add_workspace_of(user, address=address, client=client)
    return user


def give_way(email: str) -> bool:
    """Make room for the proved owner of an address; tell whether there is room. Joins the act's transaction."""
    one_at_a_time("user:create")
    found = find(email)
    if found is not None and is_unconfirmed(found):
        with transaction() as session:
            session.delete(found)
            session.flush()
        return True
    return found is None


def forget_unconfirmed() -> bool:
    """Delete accounts that were asked for and never confirmed, some at a time; tell whether there may be more."""
    return delete_some(
        User,
        and_(User.email_confirmed_at.is_(None), User.password_hash == "", User.created_at < now() - _UNCONFIRMED_KEPT),
    )


# ---- closing


def close(user: User, actor: Actor, *, reason: str | None = None) -> None:
    """Let nobody use the account any more: its sessions end, its links open nothing, and signing in is refused with
    the words for a wrong password. Its workspaces and keys stay, and their logs tell the reason."""
    with transaction() as session:
        session.refresh(user, with_for_update=True)
        if user.closed_at is not None:
            return
        user.closed_at = now()
        session_list.end_all(user)
        mailed_links.void(user, *mailed_links.LIFETIMES)
        _record_everywhere(user, actor, "user:close", reason)


def reopen(user: User, actor: Actor, *, reason: str | None = None) -> None:
    """Let a closed account be used again."""
    with transaction() as session:
        session.refresh(user, with_for_update=True)
        if user.closed_at is None:
            return
        user.closed_at = None
        _record_everywhere(user, actor, "user:reopen", reason)


def record(user: User, actor: Actor, action: str, **details: object) -> None:
    """Put an act on an account into the log of the workspace that the person joined first, if there is one."""
    for membership in workspaces.memberships_of(user)[:1]:
        audit.record(membership.workspace_id, actor, action, object_id=user.id, object_name=user.email, details=details)


def _record_everywhere(user: User, actor: Actor, action: str, reason: str | None) -> None:
    details = {"reason": reason} if reason else {}
    # In one order, so that two acts never wait for each other in a circle.
    for workspace_id in sorted(membership.workspace_id for membership in workspaces.memberships_of(user)):
        audit.record(workspace_id, actor, action, object_id=user.id, object_name=user.email, details=details)


# ---- making


def _add_user(email: str, password_hash: str, *, is_operator: bool) -> User:
    if not give_way(email):
        raise InvalidInput({"email": _NOT_CREATED})
    if is_operator:
        _close_set_up_link()
    user = User(
        id=new_id("usr"),
        email=email,
        password_hash=password_hash,
        password_changed_at=now() if password_hash else None,
        is_operator=is_operator,
        email_confirmed_at=now(),
        created_at=now(),
    )
    db.session.add(user)
    db.session.flush()
    return user


def add_workspace_of(user: User, *, address: str | None, client: str | None) -> Workspace:
    """Give a person a workspace of their own, named after their address. Joins the act's transaction."""
    return workspaces.create(_name_from(user.email), owner=user, actor=actor_of(user, address, client))


def _name_from(email: str) -> str:
    return email.split("@")[0]


def actor_of(user: User, address: str | None, client: str | None) -> Actor:
    """Who the audit log names when the person acts."""
    return Actor(kind="user", name=user.email, id=user.id, address=address, client=client)
