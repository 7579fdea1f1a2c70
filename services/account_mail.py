"""What mail about an account says. Each message belongs to the transaction of the act it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.base import now
from services import mail
from services.actor import Actor
from services.parts import parts
from services.secret import Secret


@dataclass(frozen=True, slots=True)
class Link:
    """A page to go to: what it is for, and its endpoint. A link that was mailed carries its token."""

    title: str
    endpoint: str
    token: Secret | None = None

    def values(self) -> dict[str, str]:
        """Return what the page's address takes."""
        return {"token": self.token.reveal()} if self.token else {}


@dataclass(frozen=True, slots=True)
class Words:
    """A message: sentences, links, and what to do if it was somebody else."""

    subject: str
    sentences: Sequence[str]
    links: Sequence[Link] = ()
    advice: str = ""


def send(recipient: str, words: Words, actor: Actor) -> None:
    """Queue a message in the act's transaction. ``actor`` tells from where it was asked for.

    Where an operator sits is no customer's business.
    """
    by_operator = actor.kind in ("operator", "command")
    mail.queue(
        recipient,
        f"{parts().brand}: {words.subject}",
        "account",
        sentences=list(words.sentences),
        links=[
            (link.title, link.endpoint, {"token": link.token.reveal()} if link.token else {}) for link in words.links
        ],
        advice=words.advice,
        at=now(),
        by="the operator of this portal" if by_operator else None,
        address=actor.address,
        client=actor.client,
    )


def confirm(token: Secret) -> Words:
    return Words(
        "Confirm your e-mail address",
        ["Open this link to choose a password and create your account. It works once, for 24 hours."],
        [Link("Create your account", "account.confirm", token)],
        "If you did not ask for an account, do nothing: without the link there is none.",
    )


def known_already() -> Words:
    return Words(
        "You have an account already",
        ["Somebody asked for a new account with this address. You have one already, and nothing was changed."],
        [Link("Sign in", "account.sign_in"), Link("Reset your password", "account.reset")],
        "If this was not you, there is nothing to do.",
    )


def reset(token: Secret) -> Words:
    return Words(
        "Reset your password",
        ["Open this link to choose a new password. It works once, for an hour."],
        [Link("Choose a new password", "account.reset_by_link", token)],
        "If you did not ask for this, do nothing: your password stays as it is.",
    )


def password_changed(how: str) -> Words:
    return Words(
        "Your password was changed",
        [f"The password of your account was changed {how}. Other browsers were signed out."],
        [Link("Account security", "account.security")],
        "If this was not you, reset your password now: the link on the sign-in page is always open.",
    )


def change_asked(new_email: str, undo: Secret) -> Words:
    return Words(
        "Your e-mail address is to be changed",
        [f"Your account is to move to {new_email}. It moves when the link that was sent there is opened."],
        [Link("Stop the change", "account.undo_email", undo)],
        "If this was not you, stop the change and reset your password.",
    )


def change_to(token: Secret) -> Words:
    return Words(
        "Confirm your new e-mail address",
        ["Open this link while you are signed in to move your account to this address. It works once, for 24 hours."],
        [Link("Use this address", "account.confirm_email", token)],
        "If you did not ask for this, do nothing.",
    )


def address_taken() -> Words:
    return Words(
        "This address has an account already",
        ["Somebody asked to move their account to this address. It has an account, so nothing was changed."],
        advice="If this was you, sign in with this address or choose another one.",
    )


def email_changed(new_email: str, undo: Secret) -> Words:
    return Words(
        "Your e-mail address was changed",
        [f"Your account has moved to {new_email}. Mail goes there from now on. For 72 hours this can be taken back."],
        [Link("Take the change back", "account.undo_email", undo)],
        "If this was not you, take it back: that signs everybody out, and you choose a new password.",
    )


def account_deleted() -> Words:
    return Words(
        "Your account was deleted",
        [
            "Your account was deleted, and with it the workspaces in which you were alone. You have left the others.",
            "Nobody can bring it back. You can make a new account with the same address.",
        ],
        advice="If this was not you, somebody was signed in as you. Tell the operator of this portal at once.",
    )


def account_closed() -> Words:
    return Words(
        "Your account was closed",
        [
            "The operator of this portal has closed your account. Nobody can sign in to it any more.",
            "Your workspaces and their API keys stay as they are.",
        ],
        advice="If you think this is a mistake, ask the operator of this portal.",
    )


def account_reopened() -> Words:
    return Words(
        "Your account is open again",
        ["The operator of this portal has opened your account again. Everything in it is as it was."],
        [Link("Sign in", "account.sign_in")],
        "You have to sign in anew: your sessions ended when the account was closed.",
    )


def identity_linked(provider: str) -> Words:
    return Words(
        f"Sign-in with {provider} was added",
        [f"Your account can now be signed in to with {provider}."],
        [Link("Account security", "account.security")],
        "If this was not you, remove it there and change your password.",
    )


def identity_removed(provider: str) -> Words:
    return Words(
        f"Sign-in with {provider} was removed",
        [f"Your account can no longer be signed in to with {provider}."],
        [Link("Account security", "account.security")],
        "If this was not you, reset your password.",
    )
