"""The outbox: a message is added in the transaction of the act it tells of, and sent after it, in the background.

It is tried for a day. A process that sends a message has claimed it before, so no other sends it; if that process
is killed between the mail server's answer and our note of it, the message is sent once more, with the same
Message-ID. Nothing of a message is logged but its id.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from sqlalchemy import and_, or_, select, update

from extensions import db
from models import MailMessage
from models.base import delete_some, new_id, now, transaction
from services import logs
from services.errors import InvalidInput
from services.mail_transport import Letter, Texts, is_address
from services.parts import parts

_log = structlog.get_logger("mail")

SUBJECT_LENGTH = 200
RECIPIENT_LENGTH = 254
_ERROR_LENGTH = 500
# Longer than a conversation with a mail server can take. What a killed process had claimed is free after it.
CLAIM = timedelta(minutes=5)
# How long to wait after each try: a day in all.
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
PAUSES = (
    timedelta(seconds=10),
    _MINUTE,
    5 * _MINUTE,
    15 * _MINUTE,
    30 * _MINUTE,
    *(hours * _HOUR for hours in (1, 2, 4, 8, 8)),
)
SENT_KEPT = timedelta(days=30)
FAILED_KEPT = timedelta(days=90)

_waiting = and_(MailMessage.sent_at.is_(None), MailMessage.failed_at.is_(None))


def queue(
    recipient: str, subject: str, template_name: str, workspace_id: str | None = None, **words: object
) -> MailMessage:
    """Add a message, written from ``templates/mail/<template_name>``, to the act's transaction.

    Without the act's commit there is no message. The subject is put on one line and cut. Raises InvalidInput for a
    recipient that is not exactly one e-mail address.
    """
    if len(recipient) > RECIPIENT_LENGTH or not is_address(recipient):
        raise InvalidInput({"email": "Enter an e-mail address like name@example.com"})
    texts = parts().post.render(template_name, words)
    at = now()
    message = MailMessage(
        id=new_id("mail"),
        workspace_id=workspace_id,
        recipient=recipient,
        subject=_on_one_line(subject),
        text=texts.text,
        html=texts.html,
        created_at=at,
        next_attempt_at=at,
    )
    with transaction() as session:
        session.add(message)
        session.flush()
    return message


@contextmanager
def unsent_if(quiet: bool) -> Iterator[None]:
    """Do what stands inside, and if ``quiet`` take it back: as much work as a message, and no message.

    For answers whose time must not tell whether something was sent. Joins the act's transaction, whose other work
    stays.
    """
    with transaction() as session:
        inside = session.begin_nested()
        yield
        if quiet:
            inside.rollback()
        else:
            inside.commit()


def send_next() -> bool:
    """Send the message that has waited longest, if one is due; tell whether there was one."""
    letter = _claim_next()
    if letter is None:
        return False
    try:
        parts().post.transport.send(letter)
    except Exception as error:
        # Whatever it is, the other messages must not wait behind this one.
        _note_failure(letter.id, error)
    else:
        _note_sent(letter.id)
    return True


def forget_old() -> bool:
    """Delete messages of long ago, some at a time; tell whether there may be more."""
    return delete_some(
        MailMessage, or_(MailMessage.sent_at < now() - SENT_KEPT, MailMessage.failed_at < now() - FAILED_KEPT)
    )


def forget_old_files() -> None:
    """Remove what this node's transport has kept of messages sent long ago."""
    parts().post.transport.forget(now() - SENT_KEPT)


def _claim_next() -> Letter | None:
    at = now()
    due = (_waiting, MailMessage.next_attempt_at <= at)
    query = select(MailMessage.id).where(*due).order_by(MailMessage.next_attempt_at).limit(10)
    for message_id in db.session.scalars(query).all():
        with transaction() as session:
            claimed = session.execute(
                update(MailMessage)
                .where(MailMessage.id == message_id, *due)
                .values(attempts=MailMessage.attempts + 1, next_attempt_at=at + CLAIM)
                .returning(
                    MailMessage.recipient,
                    MailMessage.subject,
                    MailMessage.text,
                    MailMessage.html,
                    MailMessage.created_at,
                )
            ).first()
        if claimed is not None:
            recipient, subject, text, html, created_at = claimed
            return Letter(message_id, recipient, subject, Texts(text, html), created_at)
    return None


def _note_sent(message_id: str) -> None:
    with transaction() as session:
        message = session.get_one(MailMessage, message_id)
        message.sent_at, message.last_error = now(), None
        # It may hold a link that opens something.
        message.text = message.html = ""
        _log.info("mail sent", message=message_id, attempts=message.attempts)


def _note_failure(message_id: str, error: Exception) -> None:
    with transaction() as session:
        message = session.get_one(MailMessage, message_id)
        if message.sent_at is not None:
            # It took so long that the claim had lapsed, and another process was luckier.
            return
        message.last_error = _told(error)
        if message.attempts > len(PAUSES):
            message.failed_at = now()
        else:
            message.next_attempt_at = now() + PAUSES[message.attempts - 1]
        _log.warning(
            "mail not sent",
            message=message_id,
            attempts=message.attempts,
            given_up=message.failed_at is not None,
            # A mail server's words may hold the address.
            error=type(error).__name__,
            smtp_code=getattr(error, "smtp_code", None),
        )


def _told(error: Exception) -> str:
    """Return what went wrong, for the operator."""
    words = str(error)
    if isinstance(error, smtplib.SMTPResponseException):
        words = f"{error.smtp_code} {_decoded(error.smtp_error)}"
    elif isinstance(error, smtplib.SMTPRecipientsRefused):
        words = "; ".join(f"{code} {_decoded(answer)}" for code, answer in error.recipients.values())
    return str(logs.clean(f"{type(error).__name__}: {_on_one_line(words, _ERROR_LENGTH)}"))[:_ERROR_LENGTH]


def _decoded(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _on_one_line(text: str, length: int = SUBJECT_LENGTH) -> str:
    """Return the text without control characters: a header of ours has one line."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r" {2,}", " ", printable).strip()[:length]
