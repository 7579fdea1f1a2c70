"""Mail of a running portal: sent in the background by whichever process comes first, whatever happens to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, update

from models import MailMessage
from models.base import now
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.neighbours.smtp_sink import SmtpSink
from tests.portal.database import run

pytestmark = pytest.mark.waits

PATIENCE_SECONDS = 20


@pytest.fixture
def portal(smtp_sink: SmtpSink) -> Iterator[Portal]:
    settings = {"ARKA_DEMO": "0", "ARKA_SMTP_URL": smtp_sink.url, "ARKA_MAIL_FROM": "no-reply@portal.example"}
    with running_portal(settings, workers=2) as portal:
        yield portal


def queue(portal: Portal, name: str) -> None:
    """Add a message to the outbox, as an act of the portal does."""
    at = now()
    message = {"id": name, "recipient": "mira@northwind.example", "subject": "Hello", "text": "text", "html": "<p>text"}
    run(portal, insert(MailMessage).values(**message, created_at=at, attempts=0, next_attempt_at=at))


def received(sink: SmtpSink) -> list[str]:
    return [got.message["Message-ID"].strip("<>").partition("@")[0] for got in sink.received]


def unsent(portal: Portal) -> int:
    return int(run(portal, select(func.count()).where(MailMessage.sent_at.is_(None)))[0][0])


def test_several_processes_send_each_message_once(portal: Portal, smtp_sink: SmtpSink) -> None:
    names = [f"mail_{number:02}" for number in range(30)]
    for name in names:
        queue(portal, name)
    assert wait_until(lambda: unsent(portal) == 0, PATIENCE_SECONDS)
    assert sorted(received(smtp_sink)) == names


def test_a_stop_lets_the_message_in_sending_be_finished(portal: Portal, smtp_sink: SmtpSink) -> None:
    smtp_sink.go_on.clear()
    queue(portal, "mail_1")
    assert smtp_sink.taking.wait(PATIENCE_SECONDS)
    threading.Timer(0.5, smtp_sink.go_on.set).start()
    began = time.monotonic()
    assert portal.stop() == 0
    assert time.monotonic() - began < 8
    assert (received(smtp_sink), unsent(portal)) == (["mail_1"], 0)


def test_a_mail_server_that_hangs_does_not_keep_the_portal_from_stopping(portal: Portal, smtp_sink: SmtpSink) -> None:
    smtp_sink.go_on.clear()
    queue(portal, "mail_1")
    assert smtp_sink.taking.wait(PATIENCE_SECONDS)
    began = time.monotonic()
    assert portal.stop() == 0
    assert time.monotonic() - began < 8


def test_a_message_outlives_the_death_of_every_process(portal: Portal, smtp_sink: SmtpSink) -> None:
    smtp_sink.go_on.clear()
    queue(portal, "mail_claimed")
    assert smtp_sink.taking.wait(PATIENCE_SECONDS)
    queue(portal, "mail_waiting")
    portal.kill()
    # The mail server sees the connection go before it may accept what came over it.
    time.sleep(1)
    smtp_sink.go_on.set()
    portal.start()
    assert wait_until(lambda: unsent(portal) == 1, PATIENCE_SECONDS)
    assert received(smtp_sink) == ["mail_waiting"]
    # The claim of the dead process lapses after five minutes.
    past = now() - timedelta(seconds=1)
    run(portal, update(MailMessage).where(MailMessage.id == "mail_claimed").values(next_attempt_at=past))
    assert wait_until(lambda: unsent(portal) == 0, PATIENCE_SECONDS)
    assert received(smtp_sink).count("mail_claimed") == 1
