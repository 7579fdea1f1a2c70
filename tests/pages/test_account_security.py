"""The page Account security, and the links that are mailed to who changes something there."""

from __future__ import annotations

import pytest
from flask import Flask

from extensions import db
from models import LoginSession, User
from services import accounts
from services.logs import clean
from services.secret import Secret
from tests import mailbox
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person

NEW_PASSWORD = "quite another long phrase"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.0 Mobile/15E148 Safari/604.1"
)


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What a page does is the same for every database; the services behind it are tested on both."""
    return one_database_url


def browser(app: Flask, person: Person, client: str) -> Visitor:
    visitor = Visitor(app)
    visitor.client.environ_base["HTTP_USER_AGENT"] = client
    return visitor.sign_in(person)


def test_the_account_menu_leads_to_it(owner: Visitor) -> None:
    page = owner.open("/overview")
    assert "/account/security" in page.links
    assert "/account/security#sessions" in page.links


def test_sessions_are_listed_in_plain_words_with_this_one_marked(app: Flask, alice: Person) -> None:
    browser(app, alice, SAFARI)
    here = browser(app, alice, FIREFOX)
    text = here.open("/account/security").text
    assert "Firefox on Windows This browser" in text
    assert "Safari on iPhone" in text
    assert text.index("Firefox on Windows") < text.index("Safari on iPhone")
    assert text.count("This browser") == 1


def test_a_session_can_be_ended_from_another_browser(app: Flask, alice: Person) -> None:
    phone, here = browser(app, alice, SAFARI), browser(app, alice, FIREFOX)
    row = db.session.query(LoginSession).filter(LoginSession.client.contains("iPhone")).one()
    page = here.post_by_hand(f"/account/sessions/{row.id}/end")
    assert "That browser is signed out." in page.text
    phone.open("/overview")
    assert phone.path == "/sign-in"
    here.open("/overview")
    assert here.path == "/overview"


def test_sign_out_everywhere_else(app: Flask, alice: Person) -> None:
    others = [browser(app, alice, SAFARI) for _ in range(2)]
    here = browser(app, alice, FIREFOX)
    page = here.post_by_hand("/account/sessions/end-others")
    assert "Signed out everywhere else: 2 browsers." in page.text
    assert "Sign out everywhere else" not in page.text.replace("Signed out everywhere else", "")
    for other in others:
        other.open("/overview")
        assert other.path == "/sign-in"


def test_a_changed_password_ends_the_other_sessions(app: Flask, alice: Person) -> None:
    phone, here = browser(app, alice, SAFARI), browser(app, alice, FIREFOX)
    page = here.submit("/account/password", current=PASSWORD, password=NEW_PASSWORD)
    assert here.path == "/account/security"
    assert "Your password is changed." in page.text
    phone.open("/overview")
    assert phone.path == "/sign-in"
    assert mailbox.subjects(alice.email) == ["Your password was changed"]


def test_what_is_wrong_with_a_new_password_is_said_at_its_field(owner: Visitor) -> None:
    page = owner.submit("/account/password", current="wrong", password=NEW_PASSWORD)
    assert owner.status == 422
    assert "#current" in page.links
    page = owner.submit("/account/password", current=PASSWORD, password="short")
    assert "#password" in page.links
    assert "short" not in page.main_form.fields


def test_present_passwords_cannot_be_tried_for_long(owner: Visitor) -> None:
    form = owner.open("/account/password")
    for _ in range(10):
        owner.send(form, current="wrong", password=NEW_PASSWORD)
        assert owner.status == 422
    owner.send(form, current=PASSWORD, password=NEW_PASSWORD)
    assert owner.status == 429


def test_an_address_is_changed_by_the_link_to_the_new_one(app: Flask, owner: Visitor, alice: Person) -> None:
    new = "alice@elsewhere.example"
    page = owner.submit("/account/email", email=new, password=PASSWORD)
    assert f"We have sent a link to {new}." in page.text
    assert f"Waiting for the link that was sent to {new}." in page.text
    link = mailbox.link(new, "/email/")
    # Who opens it without being signed in is asked to, and comes back.
    stranger = Visitor(app)
    form = stranger.open(link)
    assert stranger.path == "/sign-in"
    stranger.send(form, email=alice.email, password=PASSWORD)
    assert stranger.path == link
    page = owner.submit(link)
    assert f"Your address is now {new}." in page.text
    owner.open(link)
    assert owner.status == 410
    assert accounts.check_password(new, Secret(PASSWORD))


def test_a_change_of_address_can_be_stopped_by_the_person_and_by_the_old_address(
    app: Flask, owner: Visitor, alice: Person
) -> None:
    owner.submit("/account/email", email="a@elsewhere.example", password=PASSWORD)
    page = owner.post_by_hand("/account/email/stop")
    assert "Waiting for the link" not in page.text
    owner.submit("/account/email", email="b@elsewhere.example", password=PASSWORD)
    visitor = Visitor(app)
    page = visitor.submit(mailbox.link(alice.email, "/email/undo/"))
    assert "The change of your address is stopped." in page.text
    for email in ("a@elsewhere.example", "b@elsewhere.example"):
        owner.open(mailbox.link(email, "/email/"))
        assert owner.status == 410


def test_the_old_address_takes_a_change_back(app: Flask, owner: Visitor, alice: Person) -> None:
    owner.submit("/account/email", email="m@evil.example", password=PASSWORD)
    owner.submit(mailbox.link("m@evil.example", "/email/"))
    visitor = Visitor(app)
    page = visitor.open(mailbox.link(alice.email, "/email/undo/"))
    assert page.first("h1") == "Take the change back"
    page = visitor.send(page)
    assert visitor.path == "/reset"
    owner.open("/overview")
    assert owner.path == "/sign-in"
    assert db.session.query(User).filter_by(id=alice.user_id).one().email == alice.email


# ---- reset


def test_a_forgotten_password_is_reset_by_link(app: Flask, visitor: Visitor, owner: Visitor, alice: Person) -> None:
    assert "/reset" in visitor.open("/sign-in").links
    page = visitor.submit("/reset", email=alice.email)
    assert "If there is an account for this address, we have sent a link." in page.text
    link = mailbox.link(alice.email, "/reset/")
    for _ in range(2):
        assert Visitor(app).open(link).forms
    page = visitor.submit(link, password=NEW_PASSWORD)
    assert visitor.path == "/sign-in"
    owner.open("/overview")
    assert owner.path == "/sign-in"
    visitor.submit("/sign-in", email=alice.email, password=NEW_PASSWORD)
    assert visitor.path == "/overview"
    late = Visitor(app)
    late.open(link)
    assert late.status == 410


def test_a_link_page_tells_nobody_where_it_is(visitor: Visitor, alice: Person) -> None:
    visitor.submit("/reset", email=alice.email)
    link = mailbox.link(alice.email, "/reset/")
    page = visitor.open(link)
    assert visitor.answer is not None
    assert visitor.answer.headers["Referrer-Policy"] == "no-referrer"
    assert visitor.answer.headers["Cache-Control"] == "no-store"
    assert "http" not in page.source.replace("http://www.w3.org", "").replace("https://www.w3.org", "")


@pytest.mark.parametrize("page", ["/reset/", "/confirm/", "/email/", "/email/undo/", "/account/identities/accept/"])
def test_the_log_holds_no_link(page: str) -> None:
    token = "Ab3_-" * 8 + "xyz"
    assert len(token) == 43
    for text in (f"{page}{token}", f'"GET {page}{token}?x=1 HTTP/1.1"', f"{page}{token}/"):
        assert token not in clean(text)


def test_a_closed_account_is_signed_out_and_refused_like_a_wrong_password(owner: Visitor, alice: Person) -> None:
    accounts.close(db.session.get_one(User, alice.user_id), alice.actor)
    owner.open("/overview")
    assert owner.path == "/sign-in"
    page = owner.submit("/sign-in", email=alice.email, password=PASSWORD)
    assert "do not match an account" in page.text
