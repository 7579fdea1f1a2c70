"""People: sign-up, sign-in, and the first operator."""

from __future__ import annotations

import base64
import hmac
import secrets
from contextlib import suppress

import email_validator
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import delete, select

from extensions import db
from models import LoginSession, MailedLink, SetupLink, User, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit, passwords, sessions, workspaces
from services.actor import Actor
from services.errors import InvalidInput, SetUpLinkUsed, WrongCredentials
from services.parts import parts
from services.permissions import Role
from services.secret import Secret

# Small teams do give people addresses such as name@office.local.
email_validator.SPECIAL_USE_DOMAIN_NAMES.remove("local")

_NOT_CREATED = "This account could not be created. If you have one already, sign in"


def sign_up(email: str, password: Secret, *, address: str | None, client: str | None) -> Secret:
    """Make a user with a workspace on the first plan, and sign in. Returns the session token. Raises InvalidInput."""
    email = _checked(email, password)
    password_hash = passwords.hash_password(password)
    with transaction():
        user = _add_user(email, password_hash, is_operator=False)
        _add_workspace_of(user, address=address, client=client)
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


def sign_in(email: str, password: Secret, *, address: str | None, client: str | None) -> Secret:
    """Return the token of a new session. Raises WrongCredentials, after the same time whatever is wrong."""
    user = db.session.scalars(select(User).where(User.email == stored_form(email))).first()
    if not passwords.matches(password, user.password_hash if user else None) or user is None:
        raise WrongCredentials
    with transaction() as session:
        session.refresh(user, with_for_update={"key_share": True})
        if user.closed_at is not None:
            raise WrongCredentials
        return sessions.begin(user, methods=["password"], address=address, client=client)


# ---- the end of an account


def close(user: User, actor: Actor, *, reason: str) -> None:
    """End every session of a person and let them in no more, until the account is reopened. Joins the act.

    The reason goes to the audit log of each of their workspaces, which stay as they are.
    """
    with transaction() as session:
        user.closed_at = user.closed_at or now()
        session.execute(delete(LoginSession).where(LoginSession.user_id == user.id))
        session.execute(delete(MailedLink).where(MailedLink.user_id == user.id))
        session.flush()
        _record_everywhere(user, actor, "user:close", reason=reason)


def reopen(user: User, actor: Actor, *, reason: str) -> None:
    """Let a person in again whose account was closed. Joins the act."""
    with transaction() as session:
        user.closed_at = None
        session.flush()
        _record_everywhere(user, actor, "user:reopen", reason=reason)


def _record_everywhere(user: User, actor: Actor, action: str, **details: object) -> None:
    # In one order, so that two acts never wait for each other in a circle.
    for workspace_id in sorted(membership.workspace_id for membership in workspaces.memberships_of(user)):
        audit.record(workspace_id, actor, action, object_id=user.id, object_name=user.email, details=details)


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
        _add_workspace_of(operator, address=address, client=client)
        _adopt_ownerless_workspaces(operator, _actor(operator, address, client))
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


def _checked(email: str, password: Secret) -> str:
    """Return the e-mail address in its stored form. Raises InvalidInput."""
    faults = {}
    plain = stored_form(email)
    if not plain:
        faults["email"] = "Enter your e-mail address"
    elif not _is_address(plain):
        faults["email"] = "Enter an e-mail address like name@example.com"
    if fault := passwords.fault_of(password):
        faults["password"] = fault
    elif plain and hmac.compare_digest(password.reveal().lower().encode("utf-8", "replace"), plain.encode()):
        faults["password"] = "Use a password that is not your e-mail address"  # noqa: S105 - a sentence
    if faults:
        raise InvalidInput(faults)
    return plain


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


def _add_user(email: str, password_hash: str, *, is_operator: bool) -> User:
    one_at_a_time("user:create")
    if db.session.scalars(select(User.id).where(User.email == email)).first() is not None:
        raise InvalidInput({"email": _NOT_CREATED})
    if is_operator:
        _close_set_up_link()
    user = User(id=new_id("usr"), email=email, password_hash=password_hash, is_operator=is_operator, created_at=now())
    db.session.add(user)
    db.session.flush()
    return user


def _add_workspace_of(user: User, *, address: str | None, client: str | None) -> Workspace:
    return workspaces.create(_name_from(user.email), owner=user, actor=_actor(user, address, client))


def _name_from(email: str) -> str:
    return email.split("@")[0]


def _actor(user: User, address: str | None, client: str | None) -> Actor:
    return Actor(kind="user", name=user.email, id=user.id, address=address, client=client)
