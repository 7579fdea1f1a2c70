"""What waits in the outbox, as its recipients would read it."""

from __future__ import annotations

import re

from sqlalchemy import select

from extensions import db
from models import MailMessage


def messages(recipient: str) -> list[MailMessage]:
    """Return the messages to an address, the first in front."""
    db.session.rollback()
    query = select(MailMessage).where(MailMessage.recipient == recipient)
    return list(db.session.scalars(query.order_by(MailMessage.created_at, MailMessage.id)))


def subjects(recipient: str) -> list[str]:
    """Return what the messages are about; that somebody signed in is left out."""
    told = [message.subject.partition(": ")[2] for message in messages(recipient)]
    return [subject for subject in told if subject != "New sign-in"]


def link(recipient: str, page: str) -> str:
    """Return the path of the last link to a page, such as ``/reset/``, that was mailed to the address."""
    found = [path for message in messages(recipient) for path in re.findall(rf"{page}[\w-]{{43}}", message.text)]
    assert found, f"no link to {page} in the mail of {recipient}"
    # What is read next is what others have committed meanwhile.
    db.session.rollback()
    return found[-1]


def token(recipient: str, page: str) -> str:
    """Return what the last link to a page holds."""
    return link(recipient, page).rpartition("/")[2]
