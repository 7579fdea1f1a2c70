"""Changing an account's address: asked for with the password, told to the old address, confirmed at the new one."""

from __future__ import annotations

from models import MailedLink, User
from models.base import now, transaction
from services import account_mail, accounts, mailed_links, passwords, session_list
from services.accounts import actor_of
from services.actor import Actor
from services.errors import InvalidInput, LinkUsed, RateLimited
from services.secret import Secret


def ask(user: User, new_email: str, password: Secret, actor: Actor) -> str:
    """Mail a link to the new address and a way to stop it to the present one; nothing changes yet.

    Returns the new address as it will be stored. Whether it has an account is told to nobody but its owner. An account
    without a password is asked for none. Raises InvalidInput, and RateLimited after several in an hour.
    """
    faults = {}
    if user.password_hash and not passwords.matches(password, user.password_hash):
        faults["password"] = "This is not your password"  # noqa: S105 - a sentence
    try:
        new_email = accounts.checked_address(new_email)
    except InvalidInput as error:
        faults["email"] = error.fields["email"]
    if new_email == user.email:
        faults["email"] = "This is your address already"
    if faults:
        raise InvalidInput(faults)
    with transaction():
        if mailed_links.enough(user, mailed_links.CHANGE):
            raise RateLimited(3600)
        # A change that was asked for before must not come true after this one.
        mailed_links.void(user, mailed_links.CHANGE)
        owner = accounts.find(new_email)
        taken = owner is not None and not accounts.is_unconfirmed(owner)
        token = mailed_links.make(user, mailed_links.CHANGE, new_email)
        words = account_mail.address_taken() if taken else account_mail.change_to(token)
        account_mail.send(new_email, words, actor)
        undo = mailed_links.make(user, mailed_links.UNDO, user.email)
        account_mail.send(user.email, account_mail.change_asked(new_email, undo), actor)
        accounts.record(user, actor, "user:ask_email_change", to=new_email)
    return new_email


def waiting(user: User, token: Secret) -> MailedLink | None:
    """Return the change that a link would make, while it is good and belongs to this person."""
    link = mailed_links.find(token, mailed_links.CHANGE)
    return link if link is not None and link.user_id == user.id else None


def confirm(user: User, token: Secret, actor: Actor) -> str:
    """Move the account to the address that the link was sent to, and return it. Raises LinkUsed.

    Only the person who asked may do it, so that a mistyped address does not hand the account to a stranger.
    """
    if waiting(user, token) is None:
        raise LinkUsed
    with transaction():
        link, user = mailed_links.take(token, mailed_links.CHANGE)
        before = user.email
        _move(user, link.email)
        mailed_links.void(user, mailed_links.RESET, mailed_links.CHANGE)
        accounts.record(user, actor, "user:change_email", before=before, to=user.email)
        undo = mailed_links.make(user, mailed_links.UNDO, before)
        account_mail.send(before, account_mail.email_changed(user.email, undo), actor)
    return user.email


def undone_by(token: Secret) -> MailedLink | None:
    """Return what a link to the old address would take back, while it is good."""
    return mailed_links.find(token, mailed_links.UNDO)


def undo(token: Secret, *, address: str | None, client: str | None) -> bool:
    """Stop a change that waits; one that was made is taken back, and then nobody is signed in and no password counts.

    Tells whether a change was made and taken back: a new password is then chosen by a link. Raises LinkUsed.
    """
    with transaction():
        link, user = mailed_links.take(token, mailed_links.UNDO)
        mailed_links.void(user, mailed_links.CHANGE, mailed_links.RESET)
        actor = actor_of(user, address, client)
        if link.email == user.email:
            accounts.record(user, actor, "user:stop_email_change")
            return False
        left = user.email
        _move(user, link.email)
        mailed_links.void(user, mailed_links.UNDO)
        # Whoever moved the account knew the password.
        user.password_hash, user.password_changed_at = "", now()
        session_list.end_all(user)
        accounts.record(user, actor, "user:undo_email_change", before=left, to=user.email)
    return True


def _move(user: User, email: str) -> None:
    if not accounts.give_way(email):
        raise LinkUsed
    user.email, user.email_confirmed_at = email, now()
