"""Changing a password: by who is signed in, or by a link for who has forgotten it."""

from __future__ import annotations

from models import LoginSession, User
from models.base import now, transaction
from services import account_mail, accounts, mail, mailed_links, passwords, second_factor, session_list, workspaces
from services.accounts import actor_of
from services.actor import Actor
from services.errors import InvalidInput, LinkUsed
from services.parts import parts
from services.secret import Secret

# A change of address that waits would hand the account to whoever asked for it. What takes a change back stays.
_VOIDED = (mailed_links.CONFIRM, mailed_links.RESET, mailed_links.CHANGE)


def ask_for_reset(email: str, actor: Actor) -> None:
    """Mail the link that lets a new password be chosen, if there is an account. Raises InvalidInput.

    The same is done, and as much of it, whether there is one or not; only the message differs, or is taken back.
    """
    email = accounts.checked_address(email)
    with transaction():
        known = accounts.find(email)
        with mail.unsent_if(known is None or not _may_get_link(known)):
            user = known or accounts.add_unconfirmed(email)
            purpose = _purpose_for(user)
            token = mailed_links.make(user, purpose, user.email)
            words = account_mail.confirm(token) if purpose == mailed_links.CONFIRM else account_mail.reset(token)
            account_mail.send(user.email, words, actor)


def _may_get_link(user: User) -> bool:
    purpose = _purpose_for(user)
    shut = user.closed_at is not None or (purpose == mailed_links.CONFIRM and not parts().sign_up_open)
    return not shut and not mailed_links.enough(user, purpose)


def _purpose_for(user: User) -> str:
    """Whoever has only asked for an account so far makes it; there is no password yet to reset."""
    return mailed_links.CONFIRM if accounts.is_unconfirmed(user) else mailed_links.RESET


def reset_open(token: Secret) -> User | None:
    """Return whose password a link lets choose while it is good, else None."""
    link = mailed_links.find(token, mailed_links.RESET)
    user = mailed_links.user_of(link) if link else None
    return user if link and user and link.email == user.email else None


def reset(token: Secret, password: Secret, *, address: str | None, client: str | None) -> User:
    """Use the link: the new password counts, every session ends, and nobody is signed in by it.

    A second factor is asked for at the next sign-in as always. Raises InvalidInput for the password, LinkUsed.
    """
    user = reset_open(token)
    if user is None:
        raise LinkUsed
    password_hash = _hash_for(user, password)
    with transaction():
        link, user = mailed_links.take(token, mailed_links.RESET)
        if link.email != user.email:
            raise LinkUsed
        # Whoever opened the link reads mail there.
        user.email_confirmed_at = user.email_confirmed_at or now()
        _set(user, password_hash, actor_of(user, address, client), "by a link that was mailed to you")
    return user


def change(login_session: LoginSession, current: Secret, new: Secret, actor: Actor) -> None:
    """Change the password of who is signed in; other browsers are signed out. An account without one gets it.

    Raises InvalidInput.
    """
    user = login_session.user
    if user.password_hash and not passwords.matches(current, user.password_hash):
        raise InvalidInput({"current": "This is not your present password"})
    password_hash = _hash_for(user, new)
    before = user.password_hash
    with transaction() as session:
        session.refresh(user, with_for_update=True)
        if user.password_hash != before:
            raise InvalidInput({"current": "The password was changed meanwhile. Sign in again"})
        _set(user, password_hash, actor, "on the page Account security", stays=login_session)


def _hash_for(user: User, password: Secret) -> str:
    names = [membership.workspace.name for membership in workspaces.memberships_of(user)]
    return accounts.hash_of_new(password, user.email, second_factor=second_factor.is_on(user), workspace_names=names)


def _set(user: User, password_hash: str, actor: Actor, how: str, *, stays: LoginSession | None = None) -> None:
    user.password_hash = password_hash
    user.password_changed_at = now()
    ended = session_list.end_all(user, but=stays)
    mailed_links.void(user, *_VOIDED)
    accounts.record(user, actor, "user:change_password", sessions_ended=ended)
    account_mail.send(user.email, account_mail.password_changed(how), actor)
