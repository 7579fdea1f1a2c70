"""Requests for a plan: asked for once, decided once, each with its mail and its entry in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy.exc import IntegrityError

from extensions import db
from models import AccessRequest, AuditEvent, MailMessage
from models.base import new_id, now, transaction
from services import access_requests, mail, workspaces
from services.access_requests import AlreadyDecided
from services.actor import Actor
from services.errors import AlreadyDone, InvalidInput, NotFound, RateLimited
from services.parts import parts
from tests.people import Person, make_person
from tests.services.test_database import in_threads

OPERATOR = Actor(kind="operator", name="ops@portal.example", id="usr_ops", address="192.0.2.7", client="tests")
WISH = {"use": "Answer our customers' questions.", "volume": "some", "reply_to": "Erin@solo.example"}


@pytest.fixture
def erin(app: Flask) -> Person:
    return make_person("erin@solo.example")


def at_once(app: Flask, work: Callable[[], object], count: int) -> list[BaseException]:
    failures = in_threads(app, work, count)
    # What the test reads next is what the others have committed.
    db.session.rollback()
    return failures


def ask(person: Person, **more: Any) -> AccessRequest:
    return access_requests.ask(person.workspace, actor=person.actor, **{**WISH, **more})


def letters() -> list[MailMessage]:
    return list(db.session.query(MailMessage).order_by(MailMessage.created_at))


def log(person: Person) -> list[AuditEvent]:
    found = db.session.query(AuditEvent).filter_by(workspace_id=person.workspace_id).order_by(AuditEvent.number)
    return [entry for entry in found if entry.action.startswith(("access_request", "plan"))]


# ---- asking


def test_a_request_its_mail_to_sales_and_its_entry_come_together(app: Flask, erin: Person) -> None:
    request = ask(erin)
    assert (request.number, request.state, request.plan, request.volume) == (1, "open", "agency", "100 to 1,000")
    (letter,) = letters()
    assert letter.recipient == "sales@arka-ai.com"
    assert letter.subject == "Request 1: erin asks for Agency"
    for part in (letter.text, letter.html):
        for words in ("erin", "Erin@solo.example", "100 to 1,000", "/operator/requests/1"):
            assert words in part
    assert "> Answer our customers' questions." in letter.text
    assert [(entry.action, entry.actor_name) for entry in log(erin)] == [("access_request:send", erin.email)]


def test_without_its_mail_there_is_no_request(app: Flask, erin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(mail, "queue", fail)
    with pytest.raises(RuntimeError):
        ask(erin)
    assert access_requests.latest_of(erin.workspace) is None
    assert log(erin) == []


def test_a_workspace_has_one_open_request(app: Flask, erin: Person) -> None:
    first = ask(erin)
    with pytest.raises(AlreadyDone) as caught:
        ask(erin)
    assert caught.value.object_id == first.id
    assert len(letters()) == 1
    with pytest.raises(IntegrityError), transaction() as session:
        session.add(
            AccessRequest(
                id=new_id("ask"), number=99, workspace_id=erin.workspace_id, plan="agency", use="x", volume="x",
                reply_to="x@x.example", asked_by_name="x", state="open", created_at=now(),
            )
        )  # fmt: skip


def test_many_clicks_at_once_make_one_request_and_one_mail(app: Flask, erin: Person) -> None:
    failures = at_once(app, lambda: ask(erin, one_time_number="form-1"), count=6)
    assert len(failures) == 5
    assert all(isinstance(failure, AlreadyDone) for failure in failures)
    assert (len(letters()), db.session.query(AccessRequest).count()) == (1, 1)


def test_a_form_sent_again_after_the_decision_does_nothing(app: Flask, erin: Person) -> None:
    ask(erin, one_time_number="form-1")
    access_requests.decline(1, answer="Not now.", actor=OPERATOR)
    with pytest.raises(AlreadyDone):
        ask(erin, one_time_number="form-1")
    assert ask(erin, one_time_number="form-2").number == 2


def test_requests_of_several_workspaces_at_once_have_numbers_of_their_own(app: Flask) -> None:
    people = [make_person(f"p{number}@solo.example") for number in range(6)]
    waiting = list(people)
    assert at_once(app, lambda: ask(waiting.pop()), count=6) == []
    assert sorted(request.number for request in access_requests.queue().rows) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use", "  "),
        ("use", "x" * 2001),
        ("volume", "all of them"),
        ("reply_to", ""),
        ("reply_to", "a@x.example, b@x.example"),
        ("reply_to", "a@x.example\r\nBcc: b@x.example"),
        ("reply_to", "x" * 250 + "@x.example"),
    ],
)
def test_what_cannot_be_taken_is_named_and_asks_nothing(app: Flask, erin: Person, field: str, value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(erin, **{field: value})
    assert list(caught.value.fields) == [field]
    assert letters() == []


def test_a_greater_need_is_asked_of_the_greatest_plan(app: Flask, erin: Person, alice: Person) -> None:
    assert access_requests.volumes()["more"] == "More than 1,000 (Enterprise)"
    assert ask(erin, volume="more").plan == "enterprise"
    assert ask(alice, volume="few").plan == "enterprise", "who has Agency already asks for more"


def test_who_asks_and_withdraws_again_and_again_has_to_wait(app: Flask, erin: Person) -> None:
    for _ in range(5):
        access_requests.withdraw(erin.workspace, ask(erin).id, actor=erin.actor)
    with pytest.raises(RateLimited) as caught:
        ask(erin)
    assert 86_000 < (caught.value.retry_after or 0) <= 86_400
    other = workspaces.create("Another", owner=None, actor=erin.actor)
    with pytest.raises(RateLimited):
        access_requests.ask(other, actor=erin.actor, **WISH)
    with time_machine.travel(now() + timedelta(days=1, minutes=1)):
        assert ask(erin).number == 6


def test_a_withdrawn_request_is_out_of_the_queue(app: Flask, erin: Person, charlie: Person) -> None:
    request_id = ask(erin).id
    with pytest.raises(NotFound):
        access_requests.withdraw(charlie.workspace, request_id, actor=charlie.actor)
    access_requests.withdraw(erin.workspace, request_id, actor=erin.actor)
    assert access_requests.queue().rows == []
    with pytest.raises(AlreadyDecided):
        access_requests.withdraw(erin.workspace, request_id, actor=erin.actor)
    with pytest.raises(AlreadyDecided, match="was withdrawn by erin"):
        access_requests.grant(1, plan="agency", actor=OPERATOR)
    assert erin.workspace.plan == "starter"


# ---- deciding


def test_a_grant_is_the_plan_the_entries_and_the_mail_back(app: Flask, erin: Person) -> None:
    ask(erin)
    access_requests.grant(
        1,
        plan="enterprise",
        requests_per_minute=5000,
        plan_words="Renewed on 1 March.",
        answer="Welcome.\nCall us.",
        actor=OPERATOR,
    )
    workspace = erin.workspace
    assert (workspace.plan, workspace.requests_per_minute, workspace.plan_words) == (
        "enterprise", 5000, "Renewed on 1 March.",
    )  # fmt: skip
    back = letters()[1]
    assert (back.recipient, back.subject) == ("Erin@solo.example", "erin is on Enterprise")
    for words in ("Requests per minute: 5,000", "Renewed on 1 March.", "> Welcome.\n> Call us."):
        assert words in back.text
    granted, changed = log(erin)[1:]
    assert {entry.actor_kind for entry in (granted, changed)} == {"operator"}
    assert {entry.address for entry in (granted, changed)} == {"192.0.2.7"}
    assert (granted.action, granted.details) == (
        "access_request:grant", {"plan": "enterprise", "answer": "Welcome.\nCall us."},
    )  # fmt: skip
    assert (changed.action, changed.details["reason"]) == ("plan:change", "Request 1")
    (request,) = access_requests.decided().rows
    assert (request.state, request.granted_plan, request.decided_by_name) == ("granted", "enterprise", OPERATOR.name)


def test_a_declined_request_sends_the_reason_and_changes_nothing(app: Flask, erin: Person) -> None:
    ask(erin)
    with pytest.raises(InvalidInput):
        access_requests.decline(1, answer=" ", actor=OPERATOR)
    access_requests.decline(1, answer="We do not serve this.", actor=OPERATOR)
    assert erin.workspace.plan == "starter"
    back = letters()[1]
    assert back.recipient == "Erin@solo.example"
    assert "> We do not serve this." in back.text
    assert "We do not serve this." in back.html
    assert WISH["use"] not in back.text, "what a stranger wrote is not sent on to an address that they chose"
    assert log(erin)[1].action == "access_request:decline"


def test_of_operators_who_decide_at_once_one_wins_and_the_others_are_told(app: Flask, erin: Person) -> None:
    ask(erin)
    acts = [
        *(lambda: access_requests.grant(1, plan="agency", actor=OPERATOR) for _ in range(3)),
        *(lambda: access_requests.decline(1, answer="No.", actor=OPERATOR) for _ in range(3)),
    ]
    failures = at_once(app, lambda: acts.pop()(), count=6)
    assert len(failures) == 5
    assert all(isinstance(failure, AlreadyDecided) for failure in failures)
    assert len(letters()) == 2
    (request,) = access_requests.decided().rows
    assert (erin.workspace.plan == "agency") == (request.state == "granted")


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("plan", {"plan": "gold"}),
        ("plan", {"plan": "starter"}),
        ("requests_per_minute", {"plan": "enterprise", "requests_per_minute": 0}),
        ("words", {"plan": "agency", "plan_words": "x" * 301}),
        ("answer", {"plan": "agency", "answer": "x" * 2001}),
    ],
)
def test_a_grant_that_makes_no_sense_leaves_the_request_open(
    app: Flask, erin: Person, field: str, more: dict[str, Any]
) -> None:
    ask(erin)
    with pytest.raises(InvalidInput) as caught:
        access_requests.grant(1, actor=OPERATOR, **more)
    assert list(caught.value.fields) == [field]
    assert access_requests.open_of(erin.workspace) is not None
    assert (erin.workspace.plan, len(letters()), len(log(erin))) == ("starter", 1, 1)


@pytest.mark.parametrize("number", [0, 2, 2**31, 10**30])
def test_a_number_that_nobody_has_is_not_found(app: Flask, erin: Person, number: int) -> None:
    ask(erin)
    with pytest.raises(NotFound):
        access_requests.decline(number, answer="x", actor=OPERATOR)


def test_the_queue_is_oldest_first_and_comes_in_pages(app: Flask, erin: Person) -> None:
    with transaction() as session:
        for number in range(1, 121):
            state = "open" if number == 120 else "withdrawn"
            session.add(
                AccessRequest(
                    id=new_id("ask"), number=number, workspace_id=erin.workspace_id, plan="agency", use="x",
                    volume="x", reply_to="x@x.example", asked_by_name="x", state=state, created_at=now(),
                    decided_at=now() + timedelta(seconds=number) if state != "open" else None,
                )
            )  # fmt: skip
    first, last, beyond = (access_requests.decided(number) for number in (1, 3, 10**30))
    assert [request.number for request in first.rows] == list(range(119, 69, -1))
    assert (len(last.rows), last.last, last.total, beyond.rows) == (19, 3, 119, [])
    assert [request.number for request in access_requests.queue().rows] == [120]


def test_a_sales_address_of_one_s_own_is_written_to(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    environment["ARKA_SALES_EMAIL"] = "hello@lumen.example"
    request.getfixturevalue("app")
    assert parts().sales_email == "hello@lumen.example"
    ask(make_person("erin@solo.example"))
    assert letters()[0].recipient == "hello@lumen.example"
