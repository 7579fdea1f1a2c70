"""The outbox: a message is sent after the act it tells of, once, however often it has to be tried."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from email.headerregistry import Address
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask
from jinja2 import UndefinedError
from sqlalchemy import update

from config import ROOT
from extensions import db
from models import MailMessage
from models.base import now, transaction
from services import mail
from services.errors import InvalidInput
from services.mail_transport import Folder, Letter, Relay, SmtpServer, Texts, read_sender
from services.parts import parts
from services.secret import Secret
from tests.neighbours.smtp_sink import SmtpSink, make_certificate

WORDS: dict[str, Any] = {
    "workspace_name": "Northwind",
    "key_id": "key_1",
    "key_name": "Ünlü <b>key</b>",
    "mask": "arka_sk_1234...vwxyz",
    "current": True,
    "address": "203.0.113.9",
    "note_lines": ["<script>"],
}
SENDER = Address("ARKA", "no-reply", "portal.example")


@pytest.fixture
def environment(environment: dict[str, str], smtp_sink: SmtpSink) -> dict[str, str]:
    return environment | {
        "ARKA_SMTP_URL": smtp_sink.url,
        "ARKA_MAIL_FROM": "ARKA <no-reply@portal.example>",
        "ARKA_PUBLIC_URL": "https://portal.example/keys",
    }


def queue(recipient: str = "mira@northwind.example", subject: str = "Your key “Ünlü” has ended") -> str:
    return mail.queue(recipient, subject, "key_found", **WORDS, at=now()).id


def send_all() -> int:
    count = 0
    while mail.send_next():
        count += 1
    return count


def message(message_id: str) -> MailMessage:
    db.session.rollback()
    return db.session.get_one(MailMessage, message_id)


def change(message_id: str, **values: Any) -> None:
    with transaction() as session:
        session.execute(update(MailMessage).where(MailMessage.id == message_id).values(**values))


def letter(**more: Any) -> Letter:
    given = {"id": "mail_1", "recipient": "mira@northwind.example", "subject": "Hello", "texts": Texts("t\n", "<p>h")}
    return Letter(**{**given, "created_at": now(), **more})


# ---- what is sent


def test_a_message_has_text_and_html_and_says_who_it_is_from(app: Flask, smtp_sink: SmtpSink) -> None:
    message_id = queue("jürgen@bücher.example")
    assert send_all() == 1
    (got,) = smtp_sink.received
    assert got.sender == "no-reply@portal.example"
    assert got.message["From"] == "ARKA <no-reply@portal.example>"
    assert got.message["To"] == "jürgen@bücher.example"
    assert got.message["Subject"] == "Your key “Ünlü” has ended"
    assert got.message["Message-ID"] == f"<{message_id}@portal.example>"
    assert got.message["Auto-Submitted"] == "auto-generated"
    assert got.message["Date"].datetime.tzinfo is not None
    assert 'your API key "Ünlü <b>key</b>"' in got.text
    assert "> <script>" in got.text
    assert "<strong>Ünlü &lt;b&gt;key&lt;/b&gt;</strong>" in got.html
    assert "<script>" not in got.html
    for part in (got.text, got.html):
        assert "https://portal.example/keys/keys/key_1" in part


def test_a_domain_in_other_letters_is_spelled_as_every_server_takes_it(app: Flask, smtp_sink: SmtpSink) -> None:
    queue("mira@bücher.example")
    send_all()
    assert smtp_sink.received[0].recipients == ["mira@xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "nobody",
        "@x.example",
        "a@",
        "a@x.example\r\nBcc: all@x.example",
        "a@x.example\nTo: b@x.example",
        "a@x.example, b@x.example",
        "A <a@x.example>",
        "a b@x.example",
        "a@b@x.example",
        "a@x.example\u2028",
        "a" * 250 + "@x.example",
    ],
)
def test_what_is_not_exactly_one_address_is_refused(recipient: str) -> None:
    with pytest.raises(InvalidInput):
        queue(recipient)


def test_a_subject_stays_on_one_line(app: Flask, smtp_sink: SmtpSink) -> None:
    queue(subject="Hello\r\nBcc: all@x.example\u2028" + "x" * 300)
    send_all()
    (got,) = smtp_sink.received
    assert got.message["Bcc"] is None
    assert got.message["Subject"].startswith("Hello Bcc: all@x.example xxx")
    assert len(got.message["Subject"]) == mail.SUBJECT_LENGTH


def test_a_word_that_was_forgotten_is_an_error(app: Flask) -> None:
    with pytest.raises(UndefinedError):
        mail.queue("mira@northwind.example", "Hello", "key_found", key_name="x")


def test_every_template_has_both_forms() -> None:
    names = {path.stem for path in (ROOT / "templates" / "mail").iterdir()}
    for name in names:
        for kind in ("txt", "html"):
            assert (ROOT / "templates" / "mail" / f"{name}.{kind}").exists()


# ---- when, and how often


def test_a_message_goes_with_its_act(app: Flask, smtp_sink: SmtpSink) -> None:
    with suppress(RuntimeError), transaction():
        queue()
        raise RuntimeError("the act failed")
    assert send_all() == 0
    with transaction():
        queue()
        # In another process, while the act is not committed yet.
        waiting: list[bool] = []
        thread = threading.Thread(target=lambda: waiting.append(in_context(app, mail.send_next)))
        thread.start()
        thread.join(20)
        assert waiting == [False]
    assert send_all() == 1
    assert len(smtp_sink.received) == 1


def in_context(app: Flask, work: Callable[[], bool]) -> bool:
    with app.app_context():
        return work()


def test_a_server_that_was_away_gets_it_once_when_it_is_back(app: Flask, smtp_sink: SmtpSink) -> None:
    smtp_sink.stop()
    message_id = queue()
    assert send_all() == 1
    assert message(message_id).last_error == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert send_all() == 0
    smtp_sink.start()
    with time_machine.travel(now() + timedelta(seconds=11)):
        assert send_all() == 1
        assert send_all() == 0
    assert len(smtp_sink.received) == 1
    sent = message(message_id)
    assert (sent.attempts, sent.last_error, sent.failed_at) == (2, None, None)
    assert sent.sent_at is not None


def test_it_is_tried_for_a_day_and_then_kept_as_failed(app: Flask, smtp_sink: SmtpSink) -> None:
    smtp_sink.refusal = "451 4.7.1 later"
    message_id = queue()
    began = now()
    with time_machine.travel(began, tick=False) as clock:
        while message(message_id).failed_at is None:
            clock.move_to(max(message(message_id).next_attempt_at, now()))
            assert send_all() == 1
        assert timedelta(hours=23) < now() - began < timedelta(hours=25)
    failed = message(message_id)
    assert failed.attempts == 11
    assert failed.last_error == "SMTPDataError: 451 4.7.1 later"
    assert failed.text


def test_several_processes_at_once_send_each_message_once(app: Flask, smtp_sink: SmtpSink) -> None:
    ids = {queue() for _ in range(12)}
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                in_context(app, mail.send_next)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    got = [received.message["Message-ID"].strip("<>").partition("@")[0] for received in smtp_sink.received]
    assert sorted(got) == sorted(ids)


def test_what_a_killed_process_had_claimed_is_sent_by_another(
    app: Flask, smtp_sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = queue()

    def die(_letter: Letter) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(parts().post.transport, "send", die)
        with pytest.raises(SystemExit):
            mail.send_next()
    assert mail.send_next() is False
    with time_machine.travel(now() + mail.CLAIM + timedelta(seconds=1)):
        assert mail.send_next() is True
    assert [got.message["Message-ID"] for got in smtp_sink.received] == [f"<{message_id}@portal.example>"]


def test_a_farewell_that_fails_does_not_send_it_again(app: Flask, smtp_sink: SmtpSink) -> None:
    smtp_sink.drop_at_quit = True
    message_id = queue()
    assert send_all() == 1
    assert message(message_id).sent_at is not None
    assert len(smtp_sink.received) == 1


def test_one_message_that_cannot_be_sent_does_not_stop_the_others(
    app: Flask, smtp_sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = queue()
    # As an older version, or a hand in the database, may have left it.
    change(broken, recipient="broken")
    queue()
    assert send_all() == 2
    assert len(smtp_sink.received) == 1
    assert message(broken).last_error == "ValueError: not an e-mail address"


@pytest.mark.parametrize(
    ("at", "answer", "told"),
    [
        ("recipient_refusal", "450 4.2.0 greylisted", "SMTPRecipientsRefused: 450 4.2.0 greylisted"),
        ("recipient_refusal", "550 5.1.1 unknown", "SMTPRecipientsRefused: 550 5.1.1 unknown"),
        ("refusal", "452 4.3.1 full", "SMTPDataError: 452 4.3.1 full"),
        ("refusal", "554 5.7.1 spam", "SMTPDataError: 554 5.7.1 spam"),
    ],
)
def test_what_a_server_refuses_is_noted_and_sent_once_when_it_does_so_no_more(
    app: Flask, smtp_sink: SmtpSink, at: str, answer: str, told: str
) -> None:
    setattr(smtp_sink, at, answer)
    message_id = queue()
    assert send_all() == 1
    assert message(message_id).last_error == told
    assert message(message_id).text
    setattr(smtp_sink, at, None)
    with time_machine.travel(now() + timedelta(seconds=11)):
        assert send_all() == 1
        assert send_all() == 0
    assert len(smtp_sink.received) == 1
    assert message(message_id).sent_at is not None


def test_a_server_that_dies_before_it_has_answered_gets_the_same_message_again(app: Flask, smtp_sink: SmtpSink) -> None:
    """Nobody knows whether it kept it. Lost would be worse than twice, and mailboxes know the repetition by its id."""
    smtp_sink.drop_after_data = True
    message_id = queue()
    assert send_all() == 1
    assert (message(message_id).last_error or "").startswith("SMTPServerDisconnected")
    smtp_sink.drop_after_data = False
    with time_machine.travel(now() + timedelta(seconds=11)):
        assert send_all() == 1
    assert {got.message["Message-ID"] for got in smtp_sink.received} == {f"<{message_id}@portal.example>"}


def test_a_server_that_is_too_slow_is_left_and_tried_again(
    app: Flask, smtp_sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.mail_transport.STEP_SECONDS", 0.5)
    smtp_sink.go_on.clear()
    message_id = queue()
    assert send_all() == 1
    assert (message(message_id).last_error or "").endswith("timed out")
    monkeypatch.undo()
    smtp_sink.go_on.set()
    with time_machine.travel(now() + timedelta(seconds=11)):
        assert send_all() == 1
    sent = message(message_id)
    assert (sent.attempts, sent.failed_at) == (2, None)
    assert sent.sent_at is not None


def test_a_claim_that_has_lapsed_spoils_nothing_that_another_has_sent(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = queue()

    def too_late(_letter: Letter) -> None:
        change(message_id, sent_at=now())
        raise TimeoutError

    monkeypatch.setattr(parts().post.transport, "send", too_late)
    assert mail.send_next() is True
    assert message(message_id).last_error is None
    assert message(message_id).failed_at is None


# ---- what is kept of it


def test_what_was_sent_is_not_kept_in_the_database(app: Flask) -> None:
    message_id = queue()
    assert "203.0.113.9" in message(message_id).text
    send_all()
    assert (message(message_id).text, message(message_id).html) == ("", "")


def test_the_log_tells_of_a_message_but_not_to_whom_or_what(
    app: Flask, smtp_sink: SmtpSink, capfd: pytest.CaptureFixture[str]
) -> None:
    queue()
    send_all()
    smtp_sink.refusal = "550 mira@northwind.example is unknown here"
    queue()
    send_all()
    written = capfd.readouterr().err
    assert "mail sent" in written
    assert '"smtp_code": 550' in written
    for word in ("mira", "northwind", "203.0.113.9", "Ünlü", "unknown here"):
        assert word not in written


def test_old_messages_are_forgotten_but_never_one_that_waits(app: Flask) -> None:
    sent, failed, waiting = queue(), queue(), queue()
    change(sent, sent_at=now())
    change(failed, failed_at=now())
    for days, left in ((29, {sent, failed, waiting}), (31, {failed, waiting}), (91, {waiting})):
        with time_machine.travel(now() + timedelta(days=days), tick=False):
            assert mail.forget_old() is False
        assert set(db.session.scalars(db.select(MailMessage.id))) == left


# ---- files


def test_without_a_server_each_message_becomes_a_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "mail", SENDER)
    first = letter(texts=Texts("Grüße: https://portal.example/" + "x" * 200 + "\n", "<p>Grüße</p>\n"))
    second = letter(id="mail_0", created_at=now() + timedelta(microseconds=1))
    folder.send(first)
    folder.send(second)
    paths = sorted((tmp_path / "mail").iterdir())
    assert [path.name.split("-")[1] for path in paths] == ["mail_1.eml", "mail_0.eml"]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o600]
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700
    # As it stands, readable by eye, and the link can be copied.
    assert "Grüße: https://portal.example/" + "x" * 200 + "\n" in paths[0].read_text()


def test_a_message_tried_again_is_still_one_file(tmp_path: Path) -> None:
    once = letter()
    for _ in range(2):
        Folder(tmp_path, SENDER).send(once)
    assert len(list(tmp_path.iterdir())) == 1


def test_files_of_long_ago_are_removed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SENDER)
    folder.forget(now())
    folder.send(letter())
    (tmp_path / "notes.txt").write_text("not ours")
    folder.forget(now() - timedelta(minutes=1))
    assert len(list(tmp_path.iterdir())) == 2
    folder.forget(now() + timedelta(minutes=1))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_by_default_mail_is_in_the_instance_folder(environment: dict[str, str], request: pytest.FixtureRequest) -> None:
    del environment["ARKA_SMTP_URL"]
    request.getfixturevalue("app")
    queue()
    assert send_all() == 1
    (path,) = (Path(environment["ARKA_INSTANCE_PATH"]) / "mail").iterdir()
    assert "To: mira@northwind.example" in path.read_text()


# ---- the conversation with a mail server


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_encryption_is_never_left_out(smtp_sink: SmtpSink, security: str) -> None:
    with pytest.raises(Exception, match=r"STARTTLS|SSL|WRONG_VERSION"):
        Relay(SmtpServer("127.0.0.1", smtp_sink.port, security), SENDER).send(letter())
    assert smtp_sink.received == []


def test_the_server_has_to_prove_who_it_is(
    tmp_path: Path, smtp_sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    smtp_sink.certificate, trusted = make_certificate(tmp_path)
    relay = Relay(SmtpServer("127.0.0.1", smtp_sink.port, "starttls", "portal", Secret("right")), SENDER)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        relay.send(letter())
    assert (smtp_sink.received, smtp_sink.logins) == ([], [])
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    relay.send(letter())
    (got,) = smtp_sink.received
    assert got.encrypted
    assert smtp_sink.logins == [("portal", "right")]


def test_a_refused_password_is_a_failure_and_is_not_told(smtp_sink: SmtpSink) -> None:
    server = SmtpServer("127.0.0.1", smtp_sink.port, "none", "portal", Secret("hunter2"))
    assert "hunter2" not in repr(server)
    with pytest.raises(Exception, match="535") as caught:
        Relay(server, SENDER).send(letter())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("smtp://mail.example", ("mail.example", 587, "starttls", "", None)),
        ("smtps://mail.example", ("mail.example", 465, "tls", "", None)),
        ("smtp://u%40x:p%2F@mail.example:25", ("mail.example", 25, "starttls", "u@x", Secret("p/"))),
        ("smtp://relay.local:25?starttls=off", ("relay.local", 25, "none", "", None)),
        ("smtp://127.0.0.1:1025", ("127.0.0.1", 1025, "none", "", None)),
        ("smtp://[::1]:1025/", ("::1", 1025, "none", "", None)),
        ("smtp://localhost", ("localhost", 587, "none", "", None)),
        ("smtp://localhost.example", ("localhost.example", 587, "starttls", "", None)),
    ],
)
def test_the_address_of_a_mail_server_says_how_to_speak_to_it(address: str, expected: tuple[Any, ...]) -> None:
    server = SmtpServer.read(address)
    assert (server.host, server.port, server.security, server.username, server.password) == expected


@pytest.mark.parametrize(
    ("text", "name", "plain"),
    [
        ("no-reply@x.example", "", "no-reply@x.example"),
        ("ARKA <no-reply@x.example>", "ARKA", "no-reply@x.example"),
        ('"Keys, Ltd" <no-reply@x.example>', "Keys, Ltd", "no-reply@x.example"),
    ],
)
def test_a_sender_may_have_a_name(text: str, name: str, plain: str) -> None:
    sender = read_sender(text)
    assert (sender.display_name, sender.addr_spec) == (name, plain)
