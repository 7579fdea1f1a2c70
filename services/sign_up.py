"""Sign-up: a link proves the address, and only behind it a password is chosen.

So whoever asks with somebody else's address gains nothing: no password and no session of theirs comes to count. The
answer never depends on whether the address has an account; what differs is the mail.
"""

from __future__ import annotations

from models import User
from models.base import now, one_at_a_time, transaction
from services import account_mail, accounts, mail, mailed_links, sessions
from services.actor import Actor
from services.errors import LinkUsed, SignUpClosed
from services.parts import parts
from services.secret import Secret


def ask(email: str, actor: Actor) -> None:
    """Mail the link that makes an account, or to who has one, how to get in. Raises SignUpClosed, InvalidInput."""
    if not parts().sign_up_open:
        raise SignUpClosed
    email = accounts.checked_address(email)
    with transaction():
        one_at_a_time("user:create")
        user = accounts.find(email) or accounts.add_unconfirmed(email)
        purpose = mailed_links.CONFIRM if accounts.is_unconfirmed(user) else mailed_links.NOTICE
        quiet = user.closed_at is not None or mailed_links.enough(user, purpose)
        with mail.unsent_if(quiet):
            token = mailed_links.make(user, purpose, email)
            words = account_mail.confirm(token) if purpose == mailed_links.CONFIRM else account_mail.known_already()
            account_mail.send(email, words, actor)


def asked_with(token: Secret) -> str | None:
    """Return the address that a link confirms while it is good, else None."""
    link = mailed_links.find(token, mailed_links.CONFIRM)
    return link.email if link else None


def confirm(token: Secret, password: Secret, *, address: str | None, client: str | None) -> Secret:
    """Use the link: the address is proved, the account has this password and a workspace. Returns a session's token.

    Raises InvalidInput for the password, LinkUsed, SignUpClosed.
    """
    if not parts().sign_up_open:
        raise SignUpClosed
    email = asked_with(token)
    if email is None:
        raise LinkUsed
    password_hash = accounts.hash_of_new(password, email)
    with transaction():
        one_at_a_time("user:create")
        _, user = mailed_links.take(token, mailed_links.CONFIRM)
        if not accounts.is_unconfirmed(user):
            raise LinkUsed
        mailed_links.void(user, *mailed_links.LIFETIMES)
        finish(user, password_hash, address=address, client=client)
        return sessions.begin(user, methods=["password"], address=address, client=client)


def finish(user: User, password_hash: str, *, address: str | None, client: str | None) -> None:
    """Make an account of one that was only asked for. Joins the act's transaction."""
    with transaction() as session:
        user.password_hash = password_hash
        user.password_changed_at = user.email_confirmed_at = now()
        session.flush()
        accounts.add_workspace_of(user, address=address, client=client)
