"""Mail of a running portal: sent in the background by whichever process comes first, whatever happens to the others."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.neighbours.smtp_sink import SmtpSink

# They look into the files of SQLite from outside.
pytestmark = pytest.mark.embedded

PATIENCE_SECONDS = 20


@pytest.fixture
def portal(smtp_sink: SmtpSink) -> Iterator[Portal]:
    settings = {"ARKA_DEMO": "0", "ARKA_SMTP_URL": smtp_sink.url, "ARKA_MAIL_FROM": "no-reply@portal.example"}
    with running_portal(settings, workers=2) as portal:
        yield portal


def run(portal: Portal, statement: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(portal.instance_path / "portal.db", timeout=10)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def queue(portal: Portal, name: str) -> None:
    """Add a message to the outbox, as an act of the portal does."""
    at = moment(datetime.now(UTC))
    run(
        portal,
        "INSERT INTO mail_message (id, recipient, subject, text, html, created_at, attempts, next_attempt_at)"
        " VALUES (?, 'mira@northwind.example', 'Hello', 'text', '<p>text', ?, 0, ?)",
        name,
        at,
        at,
    )


def moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def received(sink: SmtpSink) -> list[str]:
    return [got.message["Message-ID"].strip("<>").partition("@")[0] for got in sink.received]


def unsent(portal: Portal) -> int:
    return int(run(portal, "SELECT count(*) FROM mail_message WHERE sent_at IS NULL")[0][0])  # type: ignore[call-overload]


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
    time.sleep(0.3)
    smtp_sink.go_on.set()
    portal.start()
    assert wait_until(lambda: unsent(portal) == 1, PATIENCE_SECONDS)
    assert received(smtp_sink) == ["mail_waiting"]
    # The claim of the dead process lapses after five minutes.
    past = moment(datetime.now(UTC) - timedelta(seconds=1))
    run(portal, "UPDATE mail_message SET next_attempt_at = ? WHERE id = 'mail_claimed'", past)
    assert wait_until(lambda: unsent(portal) == 0, PATIENCE_SECONDS)
    assert received(smtp_sink).count("mail_claimed") == 1
