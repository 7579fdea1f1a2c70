"""Found a key? Whoever holds one can end it, and learns nothing about those of others."""

from __future__ import annotations

import io
import re
import statistics
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from extensions import db
from models import ApiKeySecret, AuditEvent, MailMessage
from models.base import now
from services import audit, found_keys, key_history, keys, rotation, workspaces
from services.key_format import KeyFormat
from services.keys import Minted
from services.permissions import Role
from services.secret import Secret
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person, bearer, join, make_person

Mint = Callable[..., Minted]
PAGE = "/found-a-key"
DONE = "/found-a-key/done"


def works(client: FlaskClient, secret: Secret) -> bool:
    return client.get("/v1/models", headers=bearer(secret)).status_code == 200


def unknown() -> str:
    return KeyFormat("arka").generate("secret", "live").reveal()


def mails() -> list[MailMessage]:
    db.session.rollback()
    return list(db.session.scalars(db.select(MailMessage).order_by(MailMessage.recipient)))


def entries() -> list[AuditEvent]:
    db.session.rollback()
    query = db.select(AuditEvent).where(AuditEvent.action == "key:found")
    return list(db.session.scalars(query.order_by(AuditEvent.id)))


# ---- what ends


def test_a_found_key_ends_at_once_and_for_good(visitor: Visitor, client: FlaskClient, mint: Mint) -> None:
    minted = mint("Production Server")
    assert works(client, minted.secret)
    page = visitor.submit(PAGE, key=f" {minted.secret.reveal()}\n", note="")
    assert visitor.path == DONE
    assert "If this was a working key, it no longer works" in page.text
    assert not works(client, minted.secret)
    assert db.session.query(ApiKeySecret).count() == 0
    (attempt,) = key_history.attempts_since_end(minted.key)
    assert attempt.address == "127.0.0.1"


@pytest.mark.parametrize("state", ["disabled", "expired", "plan"])
def test_a_key_that_could_be_revived_ends_too(visitor: Visitor, mint: Mint, alice: Person, state: str) -> None:
    minted = mint(expires_at=now() + timedelta(hours=1))
    if state == "disabled":
        keys.disable(alice.workspace, minted.key.id, actor=alice.actor)
    if state == "plan":
        workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    with time_machine.travel(now() + timedelta(hours=2 if state == "expired" else 0), tick=True):
        visitor.submit(PAGE, key=minted.secret.reveal())
    assert len(entries()) == 1
    assert db.session.query(ApiKeySecret).count() == 0


def test_the_previous_secret_of_a_rotation_ends_alone(
    visitor: Visitor, client: FlaskClient, mint: Mint, alice: Person
) -> None:
    first = mint("Billing sync")
    second = rotation.rotate(alice.workspace, first.key.id, actor=alice.actor, until=now() + timedelta(days=1))
    visitor.submit(PAGE, key=first.secret.reveal())
    assert [works(client, each.secret) for each in (first, second)] == [False, True]
    assert entries()[0].details["ended"] == "previous secret"
    (message,) = mails()
    assert message.subject == "The previous secret of “Billing sync” was found and ended"
    assert "goes on working with its current secret" in message.text


def test_the_current_secret_of_a_rotation_ends_the_key(
    visitor: Visitor, client: FlaskClient, mint: Mint, alice: Person
) -> None:
    first = mint()
    second = rotation.rotate(alice.workspace, first.key.id, actor=alice.actor, until=now() + timedelta(days=1))
    visitor.submit(PAGE, key=second.secret.reveal())
    assert [works(client, each.secret) for each in (first, second)] == [False, False]
    assert entries()[0].details["ended"] == "key"


def test_a_previous_secret_whose_time_is_over_tells_nobody_anything(
    visitor: Visitor, mint: Mint, alice: Person
) -> None:
    first = mint()
    rotation.rotate(alice.workspace, first.key.id, actor=alice.actor, until=now() + timedelta(minutes=1))
    with time_machine.travel(now() + timedelta(minutes=2)):
        visitor.submit(PAGE, key=first.secret.reveal())
    assert visitor.path == DONE
    assert (entries(), mails()) == ([], [])


def test_sent_twice_at_once_it_is_ended_and_told_once(app: Flask, mint: Mint) -> None:
    secret = mint().secret
    failures: list[BaseException] = []

    def end() -> None:
        try:
            with app.app_context():
                found_keys.end(secret, "", address=None, client=None)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert (len(entries()), len(mails())) == (1, 1)


@pytest.mark.parametrize("rotated", [False, True])
def test_what_has_ended_since_it_was_found_is_told_once(
    app: Flask, mint: Mint, alice: Person, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    minted = mint()
    if rotated:
        rotation.rotate(alice.workspace, minted.key.id, actor=alice.actor, until=now() + timedelta(days=1))
    found = found_keys._find(minted.secret.reveal())
    monkeypatch.setattr(found_keys, "_find", lambda _text: found)
    for _ in range(2):
        found_keys.end(minted.secret, "", address=None, client=None)
    assert (len(entries()), len(mails())) == (1, 1)


# ---- what does not


def test_what_the_form_alone_tells_is_told(visitor: Visitor) -> None:
    for text, sentence in {
        "": "Paste the key",
        "sk-proj-abcdefgh": "This is not one of our keys by its form",
        "arka_sk_" + "0" * 32: "its last characters do not fit the others",
        "ärka": "This is not one of our keys by its form",
        "x" * 100_000: "This is not one of our keys by its form",
    }.items():
        page = visitor.submit(PAGE, key=text, note="on a wall")
        assert visitor.status == 422
        assert page.text.count(sentence) == 2
        assert page.first("title").startswith("Error: Found a key?")
        assert not text or text not in page.source
        assert dict(page.main_form.fields)["note"].strip() == "on a wall"


def test_nobody_ends_a_publishable_key_by_reading_it_in_a_page(
    visitor: Visitor, client: FlaskClient, mint: Mint
) -> None:
    minted = mint(kind="publishable", scopes=["models:read"])
    page = visitor.submit(PAGE, key=minted.secret.reveal())
    assert visitor.status == 422
    assert page.text.count("It is meant to be public, so nothing was done") == 2
    assert works(client, minted.secret)


def test_a_note_has_an_end(visitor: Visitor, client: FlaskClient, mint: Mint) -> None:
    minted = mint()
    page = visitor.submit(PAGE, key=minted.secret.reveal(), note="x" * 301)
    assert "Use at most 300 characters" in page.text
    assert works(client, minted.secret)


def test_a_form_from_elsewhere_is_refused(visitor: Visitor, client: FlaskClient, mint: Mint) -> None:
    minted = mint()
    assert visitor.one_request("POST", PAGE, data={"key": minted.secret.reveal()}).status_code == 400
    assert works(client, minted.secret)


# ---- what a stranger learns


def test_the_answer_is_the_same_whether_it_was_a_key_or_not(visitor: Visitor, mint: Mint, alice: Person) -> None:
    minted, deleted = mint(), mint()
    keys.delete(alice.workspace, deleted.key.id, actor=alice.actor)
    answers = set()
    for text in (minted.secret.reveal(), minted.secret.reveal(), deleted.secret.reveal(), unknown()):
        sent = {**dict(visitor.open(PAGE).main_form.fields), "key": text}
        answer = visitor.one_request("POST", PAGE, data=sent)
        assert answer.headers["Cache-Control"] == "no-store"
        answers.add((answer.status_code, answer.headers["Location"], answer.text, visitor.open(DONE).source))
    assert len(answers) == 1
    assert len(entries()) == 1


@pytest.mark.alone
def test_a_key_that_ended_takes_as_long_as_one_that_never_was(app: Flask, mint: Mint, alice: Person) -> None:
    """Medians of calls in turn, so that a change of the machine's mood meets both alike."""
    deleted = mint()
    keys.delete(alice.workspace, deleted.key.id, actor=alice.actor)
    shown = {"deleted": deleted.secret, "unknown": Secret(unknown())}
    times: dict[str, list[float]] = {name: [] for name in shown}
    for _ in range(250):
        for name, secret in shown.items():
            began = time.perf_counter()
            found_keys.end(secret, "", address=None, client=None)
            times[name].append(time.perf_counter() - began)
            db.session.rollback()
    medians = {name: statistics.median(found) for name, found in times.items()}
    assert max(medians.values()) < 1.25 * min(medians.values()), medians


def test_one_address_has_twenty_tries_a_minute(visitor: Visitor) -> None:
    form = visitor.open(PAGE)
    statuses = []
    for _ in range(21):
        visitor.send(form, key=unknown())
        statuses.append(visitor.status)
    assert statuses == [200] * 20 + [429]
    assert "Try again at" in Html(visitor.answer.text).text  # type: ignore[union-attr]
    visitor.open(PAGE)
    assert visitor.status == 200


def test_neither_key_nor_note_is_in_the_log_or_anywhere_else(
    app: Flask, visitor: Visitor, mint: Mint, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = mint().secret.reveal()
    page = visitor.submit(PAGE, key=secret, note=f"in the log of {secret}, a wall")
    other = unknown()
    visitor.submit(PAGE, key=other)
    captured = capfd.readouterr()
    kept = [str((m.subject, m.text, m.html)) for m in mails()] + [str(entry.details) for entry in entries()]
    for text in (captured.out + captured.err, page.source, *kept):
        for hidden in (secret[8:], other[8:]):
            assert hidden not in text
    assert "a wall" not in captured.err
    assert "in the log of [hidden], a wall" in entries()[0].details["note"]


# ---- what the owners learn


def test_the_audit_log_names_the_finder_by_address_and_client(visitor: Visitor, mint: Mint, alice: Person) -> None:
    minted = mint("Production Server")
    form = visitor.open(PAGE).main_form
    data = {**dict(form.fields), "key": minted.secret.reveal(), "note": "line one\r\n\x1b[31mline two"}
    visitor.one_request("POST", PAGE, data=data, headers={"User-Agent": "Finder/1.0"})
    (entry,) = entries()
    assert (entry.workspace_id, entry.object_id, entry.object_name) == (
        alice.workspace_id,
        minted.key.id,
        "Production Server",
    )
    assert (entry.actor_kind, entry.actor_id, entry.address, entry.client) == (
        "finder",
        None,
        "127.0.0.1",
        "Finder/1.0",
    )
    assert entry.details == {"ended": "key", "mask": mask_of(minted), "note": "line one\n[31mline two"}
    assert list(audit.first_breaks()) == []


def mask_of(minted: Minted) -> str:
    parsed = KeyFormat("arka").parse(minted.secret.reveal())
    assert parsed is not None
    return f"arka_sk_test_{parsed.first_characters}...{parsed.last_characters}"


def test_owners_and_admins_get_a_mail_and_nobody_else(
    visitor: Visitor, mint: Mint, alice: Person, bob: Person, charlie: Person
) -> None:
    admin, developer = make_person("ada@northwind.example"), make_person("dora@northwind.example")
    join(admin, alice, Role.ADMIN)
    join(developer, alice, Role.DEVELOPER)
    minted = mint("Production Server")
    visitor.submit(PAGE, key=minted.secret.reveal(), note="https://paste.example/x\n-- \n<b>bold</b>")
    sent = mails()
    assert [message.recipient for message in sent] == [admin.email, alice.email]
    assert {message.workspace_id for message in sent} == {alice.workspace_id}
    for message in sent:
        assert message.subject == "Your API key “Production Server” was found and ended"
        for part in (message.text, message.html):
            for told in ("Production Server", mask_of(minted), "127.0.0.1", "https://paste.example/x", "Create a new"):
                assert told in part
            assert re.search(r"\d+ \w+ \d{4}, \d\d:\d\d:\d\d UTC", part)
        # What strangers write looks like nothing of ours.
        assert "> -- \n" in message.text
        assert "&lt;b&gt;bold" in message.html


def test_links_in_the_mail_lead_to_pages(visitor: Visitor, owner: Visitor, mint: Mint) -> None:
    visitor.submit(PAGE, key=mint().secret.reveal())
    (message,) = mails()
    links = set(re.findall(r"http://127.0.0.1:5000(/\S+)", message.text))
    assert len(links) == 3
    assert set(re.findall(r'href="http://127.0.0.1:5000(/[^"]+)"', message.html)) == links
    for link in links:
        owner.open(link)
        assert owner.status == 200


def test_no_key_ends_without_its_entry_and_its_mail(
    app: Flask, client: FlaskClient, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    minted = mint()

    def fail(*_args: object, **_words: object) -> None:
        raise RuntimeError("no mail")

    monkeypatch.setattr("services.mail.queue", fail)
    with pytest.raises(RuntimeError):
        found_keys.end(minted.secret, "", address=None, client=None)
    assert works(client, minted.secret)
    assert entries() == []


# ---- where the page is


def test_public_pages_lead_to_it(visitor: Visitor, owner: Visitor) -> None:
    for path in ("/sign-in", "/sign-up", "/nowhere"):
        assert PAGE in visitor.open(path).links
    assert PAGE not in owner.open("/keys").links


def test_a_file_or_json_in_place_of_a_form_is_no_fault_of_ours(app: Flask) -> None:
    visitor = Visitor(app)
    token = dict(visitor.open("/found-a-key").main_form.fields)["csrf_token"]
    upload = {"csrf_token": token, "key": (io.BytesIO(b"arka_sk_"), "key.txt")}
    answer = visitor.one_request("POST", "/found-a-key", data=upload, content_type="multipart/form-data")
    assert answer.status_code == 422
    for body in ({"key": 5}, [1], {"key": "a\0b"}):
        answer = visitor.one_request("POST", "/found-a-key", json=body, headers={"X-CSRFToken": token})
        assert answer.status_code in (400, 422), body
