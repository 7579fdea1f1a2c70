"""The outbox as the operator sees it: what waits, was sent or has failed, and trying again."""

from __future__ import annotations

import re

from sqlalchemy import func, select, update

from extensions import db
from models import MailMessage
from models.base import now, transaction
from services import audit, workspaces
from services.actor import Actor
from services.errors import NotFound
from services.pages import Page, page_of
from services.parts import parts

# In the order in which a message goes through them.
STATES = {
    "waiting": MailMessage.sent_at.is_(None) & MailMessage.failed_at.is_(None),
    "sent": MailMessage.sent_at.is_not(None),
    "failed": MailMessage.failed_at.is_not(None) & MailMessage.sent_at.is_(None),
}
LINK_LEFT_OUT = "[a link, not shown here]"
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://\S*", re.IGNORECASE)


def state_of(message: MailMessage) -> str:
    """Return "waiting", "sent" or "failed"."""
    if message.sent_at is not None:
        return "sent"
    return "waiting" if message.failed_at is None else "failed"


def counts() -> dict[str, int]:
    """Return how many messages are in each state."""
    query = select(*(func.count().filter(condition) for condition in STATES.values())).select_from(MailMessage)
    return dict(zip(STATES, db.session.execute(query).one(), strict=True))


def messages(state: str = "", number: int = 1) -> Page[MailMessage]:
    """Return a page of the messages in a state, or of all, the newest first."""
    query = select(MailMessage)
    if state in STATES:
        query = query.where(STATES[state])
    return page_of(query.order_by(MailMessage.created_at.desc(), MailMessage.id), number)


def get(message_id: str) -> MailMessage:
    """Raises NotFound."""
    message = db.session.get(MailMessage, message_id)
    if message is None:
        raise NotFound
    return message


def kept_as_files() -> bool:
    """Tell whether mail is written to files instead of being sent."""
    return parts().post.transport.keeps_letters


def readable_text(message: MailMessage, reader_email: str) -> str | None:
    """Return what a message kept as a file says, as far as an operator may read it at a page; None: nothing.

    Whoever opens a link out of somebody's mail is taken for them: a link to set a new password opens the account. So
    links are left out, except in what was sent to the reader. Who may read the folder itself has the database, too, and
    needs no page.
    """
    text = parts().post.transport.kept_text(message.id, message.created_at)
    if text is None or message.recipient == reader_email:
        return text
    return _LINK.sub(LINK_LEFT_OUT, text)


def try_again(message_id: str, *, actor: Actor) -> bool:
    """Put a failed message back to those that wait, for another day of tries; tell whether it was a failed one.

    Raises NotFound.
    """
    workspace_id = get(message_id).workspace_id
    with transaction() as session:
        if workspace_id is not None:
            # The workspace first: every act on one takes its row before what belongs to it.
            workspaces.locked(workspace_id)
        revived = session.execute(
            update(MailMessage)
            .where(MailMessage.id == message_id, STATES["failed"])
            .values(failed_at=None, attempts=0, next_attempt_at=now())
            .returning(MailMessage.subject)
        ).first()
        if revived is None:
            return False
        if workspace_id is not None:
            audit.record(workspace_id, actor, "mail:try_again", object_id=message_id, object_name=revived.subject)
    return True
