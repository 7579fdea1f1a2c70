"""Tells a person what happened to their account: an entry in the audit log and, mostly, a mail.

Both belong to the transaction of the act. Mail goes only to an address that was confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models import User
from models.base import now, transaction
from services import audit, mail, workspaces
from services.actor import Actor
from services.parts import parts

_NOT_YOU = "If this was not you, change your password and end the sessions that you do not know."


@dataclass(frozen=True, slots=True)
class Notice:
    """The words of a mail; ``{}`` in the sentence is filled in."""

    subject: str
    sentence: str
    advice: str = _NOT_YOU


NOTICES = {
    "user:new_sign_in": Notice("New sign-in", "Somebody signed in to your account from a place not seen lately."),
    "user:second_factor_on": Notice(
        "Two-factor authentication is on", "Signing in to your account now needs a second factor as well: {}."
    ),
    "user:second_factor_off": Notice(
        "Two-factor authentication is off", "Signing in to your account no longer needs a second factor."
    ),
    "user:app_add": Notice("An authenticator app was added", "An authenticator app was added to your account."),
    "user:app_remove": Notice(
        "An authenticator app was removed", "The authenticator app was removed from your account."
    ),
    "user:passkey_add": Notice("A passkey was added", "The passkey “{}” was added. It signs in to your account."),
    "user:passkey_delete": Notice("A passkey was deleted", "The passkey “{}” was deleted from your account."),
    "user:passkey_copied": Notice(
        "A passkey was refused",
        "The passkey “{}” was refused: it counts its uses, and the count went back. It may have been copied.",
        "Delete the passkey, and make a new one on a device that you trust.",
    ),
    "user:recovery_codes_make": Notice(
        "New recovery codes", "New recovery codes were made for your account. Earlier ones no longer work."
    ),
    "user:recovery_code_use": Notice(
        "A recovery code was used", "A recovery code was used for your account. Codes left: {}."
    ),
    "user:codes_refused": Notice(
        "Wrong codes",
        "{} wrong codes were entered for your second factor, by somebody who had got past the first step.",
        "If this was not you, change your password now: whoever it was knows it.",
    ),
}


def tell(
    user: User,
    actor: Actor,
    action: str,
    *words: object,
    object_name: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record an act in the log of the person's first workspace, and mail it when there are words for it.

    Joins the act's transaction.
    """
    with transaction():
        workspace = workspaces.first_of(user)
        named = object_name or user.email
        audit.record(workspace.id, actor, action, object_id=user.id, object_name=named, details=details)
        if action in NOTICES:
            send(user, actor, action, *words)


def send(user: User, actor: Actor, action: str, *words: object) -> None:
    """Mail the words for an act that the log knows already. Joins the act's transaction."""
    if user.email_confirmed_at is None:
        return
    notice = NOTICES[action]
    mail.queue(
        user.email,
        f"{parts().brand}: {notice.subject}",
        "security_notice",
        email=user.email,
        sentence=notice.sentence.format(*words),
        advice=notice.advice,
        at=now(),
        address=actor.address,
        client=actor.client,
    )
