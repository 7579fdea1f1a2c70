"""Contact sales, as an owner sees it: the form, the status, the answer, the Plan page."""

from __future__ import annotations

import pytest
from flask import Flask

from extensions import db
from models import AccessRequest, MailMessage
from services import access_requests, workspaces
from services.actor import Actor
from services.permissions import Role
from tests.pages.visitor import Visitor
from tests.people import Person, join, make_person

OPERATOR = Actor(kind="operator", name="ops@portal.example")
WISH = {"use": "A bot that answers.", "volume": "some", "reply_to": "erin@solo.example"}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: tests/services asks the same of both."""
    return one_database_url


@pytest.fixture
def erin(app: Flask) -> Person:
    """Owner of a workspace on Starter."""
    return make_person("erin@solo.example")


@pytest.fixture
def starter(app: Flask, erin: Person) -> Visitor:
    return Visitor(app).sign_in(erin)


def test_a_request_sent_at_the_gate_turns_it_into_a_status_page_and_then_into_the_key_list(
    starter: Visitor, erin: Person
) -> None:
    page = starter.open("/keys")
    assert dict(page.main_form.fields)["reply_to"] == erin.email
    page = starter.send(page, **WISH)
    assert (starter.path, starter.status) == ("/keys", 200)
    for words in (
        "We have your request",
        "Number 1,",
        "Sales answers to erin@solo.example. This page turns into your key list when the plan is switched on.",
        "A bot that answers.",
        "100 to 1,000",
        "Withdraw",
    ):
        assert words in page.text
    assert db.session.query(MailMessage).one().recipient == "sales@arka-ai.com"
    access_requests.grant(1, plan="agency", actor=OPERATOR)
    page = starter.open("/keys")
    assert "No API keys yet" in page.text
    assert "/keys/new" in page.links
    page = starter.post_by_hand("/keys", **WISH)
    assert "No API keys yet" in page.text, "a form that was still open asks for nothing any more"
    assert access_requests.queue().total == 0


def test_a_refused_form_keeps_what_was_typed_and_sends_nothing(starter: Visitor) -> None:
    page = starter.submit("/keys", use="", volume="more", reply_to="nobody")
    assert (starter.path, starter.status) == ("/keys", 422)
    assert page.first("title").startswith("Error: ")
    for words in ("Say in a sentence what you will use the API for", "Enter an e-mail address like name@example.com"):
        assert page.text.count(words) == 2
    fields = dict(page.main_form.fields)
    assert (fields["volume"], fields["reply_to"]) == ("more", "nobody")
    page = starter.send(page, use="x" * 2001, volume="all", reply_to="erin@solo.example")
    assert starter.status == 422
    assert "Use at most 2,000 characters" in page.text
    assert "Choose one of the numbers" in page.text
    assert db.session.query(AccessRequest).count() == db.session.query(MailMessage).count() == 0


def test_a_double_click_asks_once(starter: Visitor, erin: Person) -> None:
    page = starter.open("/keys")
    starter.send(page, **WISH)
    page = starter.send(page, **WISH)
    assert "Number 1," in page.text
    starter.send(page)  # withdraws
    starter.send(starter.open("/keys"), **WISH)
    assert [request.number for request in access_requests.history_of(erin.workspace).rows] == [2, 1]
    assert db.session.query(MailMessage).count() == 2


def test_a_withdrawn_request_brings_the_form_back(starter: Visitor) -> None:
    page = starter.send(starter.submit("/keys", **WISH))
    assert "Request 1 is withdrawn." in page.text
    assert starter.path == "/keys"
    assert "use" in page.main_form.names
    request = access_requests.get(1)
    page = starter.post_by_hand(f"/plan/request/{request.id}/withdraw")
    assert "Request 1 was withdrawn by erin@solo.example already." in page.text


def test_a_declined_request_shows_the_operator_s_words_and_may_be_sent_again(starter: Visitor) -> None:
    starter.submit("/keys", **WISH)
    access_requests.decline(1, answer="We do not serve bots.\nSorry.", actor=OPERATOR)
    page = starter.open("/keys")
    assert "Request 1 was declined" in page.text
    assert "We do not serve bots.\nSorry." in page.source
    assert "/plan/request" in page.links
    starter.submit("/plan/request", use="No bot at all.", reply_to="erin@solo.example")
    assert starter.path == "/plan"
    assert "Number 2," in starter.open("/keys").text


def test_too_many_requests_in_a_day_have_to_wait(starter: Visitor, erin: Person) -> None:
    for _ in range(5):
        request = access_requests.ask(erin.workspace, actor=erin.actor, **WISH)
        access_requests.withdraw(erin.workspace, request.id, actor=erin.actor)
    page = starter.submit("/keys", **WISH)
    assert starter.status == 429
    assert "Try again at" in page.text


def test_who_is_no_owner_asks_an_owner(app: Flask, starter: Visitor, erin: Person) -> None:
    frank = make_person("frank@solo.example")
    join(frank, erin, Role.ADMIN)
    visitor = Visitor(app).sign_in(frank).look_at(erin)
    for path in ("/keys", "/plan"):
        page = visitor.open(path)
        assert "Only owners can ask for a plan. Yours: erin@solo.example." in page.text
        assert "Contact sales" not in page.text
        assert "/plan/request" not in page.links
    visitor.open("/plan/request")
    assert visitor.status == 403
    for path in ("/keys", "/plan/request"):
        visitor.post_by_hand(path, **WISH)
        assert visitor.status == 403
    assert db.session.query(AccessRequest).count() == 0
    starter.submit("/keys", **WISH)
    assert "Request 1 is with sales since" in visitor.open("/keys").text
    visitor.post_by_hand(f"/plan/request/{access_requests.get(1).id}/withdraw")
    assert visitor.status == 403


def test_the_plan_page_says_what_the_plan_gives_and_what_the_operator_wrote(owner: Visitor, alice: Person) -> None:
    words = "Renewed on 1 March 2027."
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=5000, words=words, actor=OPERATOR)
    page = owner.open("/plan")
    for said in ("Enterprise", "custom", "5,000, all keys together", words, "Ask for more"):
        assert said in page.text
    for never in ("Upgrade", "upgrade", "Contact sales"):
        assert never not in page.text
    page = owner.submit("/plan/request", use="Ten times as much.", volume="more", reply_to=alice.email)
    assert owner.path == "/plan"
    for said in ("We have your request", "Number 1", "Ten times as much.", "Requests", "Open"):
        assert said in page.text
    assert "Ask for more" not in page.text
    assert access_requests.get(1).plan == "enterprise"
    owner.open("/plan/request")
    assert owner.path == "/plan", "one is open already"
    page = owner.send(page)
    assert owner.path == "/plan"
    assert "Withdrawn" in page.text


def test_a_viewer_sees_the_plan_but_not_what_was_asked(viewer: Visitor, alice: Person) -> None:
    access_requests.ask(alice.workspace, use="A secret plan.", volume="few", reply_to=alice.email, actor=alice.actor)
    page = viewer.open("/plan")
    assert "1,000, all keys together" in page.text
    assert "A secret plan." not in page.text


def test_with_keys_that_are_paused_contact_sales_is_a_page_of_its_own(
    owner: Visitor, alice: Person, mint: object
) -> None:
    mint("Production Server")  # type: ignore[operator]
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=OPERATOR)
    assert "/plan/request" in owner.open("/keys").links
    page = owner.open("/plan/request")
    assert page.first("h1") == "Contact sales"
    assert not [link for link in page.links if link.startswith("mailto:") and "subject" in link]
