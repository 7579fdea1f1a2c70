"""Sign-up, sign-in, sign-out and the operator's first start."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from sqlalchemy import func, select

from extensions import db
from models import LoginSession, User
from services import accounts
from tests import mailbox
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person


def users() -> int:
    return db.session.scalar(select(func.count()).select_from(User)) or 0


# ---- sign-up


def signed_up(visitor: Visitor, email: str = "erin@new.example") -> Html:
    """Ask for an account and open the link."""
    visitor.submit("/sign-up", email=email)
    return visitor.open(mailbox.link(email, "/confirm/"))


def test_who_opens_the_link_and_chooses_a_password_has_a_workspace_on_the_first_plan(visitor: Visitor) -> None:
    page = visitor.submit("/sign-up", email=" Erin@New.Example ")
    assert visitor.path == "/sign-up/sent"
    assert "We have sent a link to Erin@New.Example." in page.text
    link = mailbox.link("erin@new.example", "/confirm/")
    form = visitor.open(link)
    assert "erin@new.example" in form.text
    page = visitor.send(form, password=PASSWORD)
    assert visitor.path == "/overview"
    assert "Your account is ready." in page.text
    assert "Starter" in page.text
    assert page.first("title") == "Overview · erin · ARKA"


def test_the_page_says_where_mail_lies_while_there_is_no_mail_server(visitor: Visitor) -> None:
    page = visitor.submit("/sign-up", email="erin@new.example")
    assert "This portal has no mail server yet." in page.text


def test_sign_up_says_the_same_whoever_has_the_address(visitor: Visitor, alice: Person) -> None:
    pages = []
    for email in ("nobody@northwind.example", alice.email):
        page = visitor.submit("/sign-up", email=email)
        pages.append((visitor.status, visitor.path, page.source.replace(email, "...")))
    assert pages[0] == pages[1]
    assert mailbox.subjects(alice.email) == ["You have an account already"]


@pytest.mark.parametrize(
    ("email", "sentence"),
    [("", "Enter your e-mail address"), ("nobody", "Enter an e-mail address like name@example.com")],
)
def test_sign_up_says_what_is_wrong_at_the_field_and_above_the_title(
    visitor: Visitor, email: str, sentence: str
) -> None:
    page = visitor.submit("/sign-up", email=email)
    assert visitor.status == 422
    assert page.first("title").startswith("Error: Create an account")
    assert page.text.count(sentence) == 2
    assert page.text.index("There is a problem") < page.text.index(page.first("h1"), 40)
    assert users() == 0


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("", "Enter a password"),
        ("short", "Use at least 15 characters"),
        ("x" * 129, "Use at most 128 characters"),
        ("password1234567", "among the first that others would try"),
        ("erin@new.example", "among the first that others would try"),
    ],
)
def test_a_refused_password_keeps_the_link_and_is_forgotten(visitor: Visitor, password: str, sentence: str) -> None:
    page = visitor.send(signed_up(visitor), password=password)
    assert visitor.status == 422
    assert page.text.count(sentence) == 2
    assert not password or password not in page.source.replace("erin@new.example", "")
    visitor.send(page, password=PASSWORD)
    assert visitor.path == "/overview"


def test_opening_a_link_uses_nothing_up_and_sending_its_form_does(visitor: Visitor, app: Flask) -> None:
    form = signed_up(visitor)
    for _ in range(3):
        assert Visitor(app).open(form.main_form.action).forms
    visitor.send(form, password=PASSWORD)
    late = Visitor(app)
    page = late.open(form.main_form.action)
    assert late.status == 410
    assert "/sign-up" in page.links


def test_closed_sign_up_says_how_to_get_in_and_makes_nothing(closed: Visitor) -> None:
    page = closed.open("/sign-up")
    assert closed.status == 200
    assert "Sign-up is closed" in page.text
    assert "invite" in page.text
    assert not page.forms
    closed.post_signed_out("/sign-up", email="erin@new.example")
    assert closed.status == 403
    assert users() == 0
    assert "Create an account" not in closed.open("/sign-in").text


@pytest.fixture
def closed(environment: dict[str, str], request: pytest.FixtureRequest) -> Visitor:
    """Somebody who is not signed in, while sign-up is closed."""
    environment["ARKA_SIGN_UP"] = "closed"
    return Visitor(request.getfixturevalue("app"))


# ---- sign-in


def test_sign_in_goes_to_the_overview(visitor: Visitor, alice: Person) -> None:
    page = visitor.submit("/sign-in", email=alice.email.upper(), password=alice.password)
    assert visitor.path == "/overview"
    assert alice.email in page.text


def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(visitor: Visitor, alice: Person) -> None:
    pages = []
    for email in (alice.email, "nobody@northwind.example"):
        page = visitor.submit("/sign-in", email=email, password="not the right one at all")
        assert visitor.status == 422
        pages.append(re.sub(r'value="[^"]*"', "", page.source))
    assert pages[0] == pages[1]
    assert "do not match an account" in pages[0]


def test_sign_in_leads_to_where_one_wanted_to_go(visitor: Visitor, alice: Person) -> None:
    form = visitor.open("/keys?page=1")
    assert visitor.path == "/sign-in"
    assert form.first("title") == "Sign in · ARKA"
    visitor.send(form, email=alice.email, password=alice.password)
    assert visitor.answer is not None
    assert visitor.answer.request.full_path == "/keys?page=1"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "evil.example",
        " //evil.example",
    ],
)
def test_sign_in_never_leads_to_another_host(visitor: Visitor, alice: Person, target: str) -> None:
    form = Html(visitor.one_request("GET", "/sign-in", query_string={"next": target}).text).main_form
    assert "evil" not in form.action
    data = {**dict(form.fields), "email": alice.email, "password": alice.password}
    answer = visitor.one_request("POST", "/sign-in", query_string={"next": target}, data=data)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/overview"


def test_signing_in_drops_what_the_cookie_held_before(visitor: Visitor, alice: Person) -> None:
    visitor.open("/sign-in")
    with visitor.client.session_transaction() as planted:
        planted["planted"] = "by somebody else"
        token_before = planted["csrf_token"]
    visitor.submit("/sign-in", email=alice.email, password=alice.password)
    with visitor.client.session_transaction() as session:
        assert "planted" not in session
        assert session.get("csrf_token") != token_before


def test_who_is_signed_in_is_not_asked_again(owner: Visitor) -> None:
    owner.open("/sign-in")
    assert owner.path == "/overview"
    owner.open("/sign-up")
    assert owner.path == "/overview"


# ---- sign-out


def test_sign_out_ends_the_session_itself(owner: Visitor, app: Flask) -> None:
    cookie = owner.client.get_cookie("portal")
    assert cookie is not None
    page = owner.post_by_hand("/sign-out")
    assert owner.path == "/sign-in"
    assert "You are signed out." in page.text

    thief = Visitor(app)
    thief.client.set_cookie("portal", cookie.value)
    thief.open("/overview")
    assert thief.path == "/sign-in"


def test_sign_out_is_not_a_link(owner: Visitor) -> None:
    assert owner.one_request("GET", "/sign-out").status_code == 405
    owner.open("/overview")
    assert owner.path == "/overview"


def test_signing_out_twice_is_harmless(owner: Visitor) -> None:
    token = owner.token()
    owner.post_by_hand("/sign-out")
    answer = owner.one_request("POST", "/sign-out", data={"csrf_token": token})
    assert answer.status_code in (303, 400)


def test_the_database_holds_no_session_token(owner: Visitor) -> None:
    with owner.client.session_transaction() as session:
        token = session["_user_id"]
    row = db.session.scalars(select(LoginSession)).one()
    assert token.encode() not in row.token_digest


# ---- CSRF


@pytest.mark.parametrize(
    "path",
    [
        "/sign-in",
        "/sign-up",
        "/sign-out",
        "/workspaces",
        "/keys/new",
        "/account/password",
        "/account/email",
        "/account/sessions/end-others",
    ],
)
def test_a_form_without_its_token_does_nothing(owner: Visitor, path: str) -> None:
    answer = owner.one_request("POST", path, data={"name": "forged"})
    assert answer.status_code == 400
    assert "This form has expired" in answer.text
    owner.open("/overview")
    assert owner.path == "/overview"


# ---- limits


def test_ten_attempts_at_one_account_in_a_minute(visitor: Visitor, alice: Person) -> None:
    form = visitor.open("/sign-in")
    for _ in range(10):
        visitor.send(form, email=alice.email, password="a wrong password")
        assert visitor.status == 422
    page = visitor.send(form, email=alice.email.upper(), password=alice.password)
    assert visitor.status == 429
    assert re.search(r"Too many attempts .*Try again at \d\d:\d\d UTC, or reset your password\.", page.text)
    assert visitor.answer is not None
    assert 0 < int(visitor.answer.headers["Retry-After"]) <= 61
    visitor.send(form, email="somebody@else.example", password="a wrong password")
    assert visitor.status == 422


def test_twenty_messages_from_one_address_in_a_minute(visitor: Visitor) -> None:
    form = visitor.open("/sign-up")
    for _ in range(20):
        visitor.send(form, email="nobody")
        assert visitor.status == 422
    visitor.send(form, email="nobody")
    assert visitor.status == 429
    visitor.open("/sign-up")
    assert visitor.status == 200


def from_address(app: Flask, number: int) -> Visitor:
    """Somebody at another address."""
    visitor = Visitor(app)
    visitor.client.environ_base["REMOTE_ADDR"] = f"203.0.113.{number}"
    return visitor


def test_strangers_who_try_passwords_do_not_keep_a_known_browser_out(
    app: Flask, visitor: Visitor, alice: Person
) -> None:
    visitor.sign_in(alice).post_by_hand("/sign-out")
    refused = 0
    for number in range(4):
        stranger = from_address(app, number + 1)
        form = stranger.open("/sign-in")
        for _ in range(10):
            stranger.send(form, email=alice.email, password="a wrong password")
            refused += stranger.status == 429
    # All who are not known have 30 tries in a minute together, and the owner's first sign-in was one of them.
    assert refused == 11
    newcomer = from_address(app, 99)
    page = newcomer.submit("/sign-in", email=alice.email, password=alice.password)
    assert newcomer.status == 429
    assert "/reset" in page.links
    visitor.sign_in(alice)
    assert visitor.path == "/overview"


def test_who_resets_by_mail_is_let_in_while_strangers_try(app: Flask, alice: Person) -> None:
    for number in range(3):
        stranger = from_address(app, number + 1)
        form = stranger.open("/sign-in")
        for _ in range(10):
            stranger.send(form, email=alice.email, password="a wrong password")
    owner = from_address(app, 50)
    owner.submit("/reset", email=alice.email)
    owner.submit(mailbox.link(alice.email, "/reset/"), password="quite another long phrase")
    owner.submit("/sign-in", email=alice.email, password="quite another long phrase")
    assert owner.path == "/overview"


def test_a_browser_is_known_to_the_account_it_signed_in_to_and_to_no_other(
    app: Flask, visitor: Visitor, alice: Person, charlie: Person
) -> None:
    visitor.sign_in(charlie).post_by_hand("/sign-out")
    form = visitor.open("/sign-in")
    for _ in range(10):
        visitor.send(form, email=alice.email, password="a wrong password")
    visitor.client.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    form = visitor.open("/sign-in")
    for _ in range(20):
        visitor.client.environ_base["REMOTE_ADDR"] = f"203.0.113.{_ + 100}"
        visitor.send(form, email=alice.email, password="a wrong password")
        assert visitor.status == 422
    visitor.send(form, email=alice.email, password=alice.password)
    assert visitor.status == 429


# ---- the operator's first start


def test_the_set_up_link_makes_one_operator(visitor: Visitor, app: Flask) -> None:
    token = accounts.set_up_token()
    assert token is not None
    page = visitor.open(f"/setup/{token.reveal()}")
    for setting in ("ARKA", app.config["PUBLIC_URL"], "sales@arka-ai.com"):
        assert setting in page.text
    page = visitor.send(page, email="op@portal.example", password=PASSWORD)
    assert visitor.path == "/overview"
    assert "You are the operator of this portal." in page.text
    assert db.session.scalars(select(User.is_operator).where(User.email == "op@portal.example")).one()

    second = Visitor(app)
    page = second.open(f"/setup/{token.reveal()}")
    assert second.status == 410
    assert "user create EMAIL --operator" in page.text
    assert not page.forms


def test_a_refused_set_up_keeps_the_link(visitor: Visitor) -> None:
    token = accounts.set_up_token()
    assert token is not None
    page = visitor.submit(f"/setup/{token.reveal()}", email="op@portal.example", password="short")
    assert visitor.status == 422
    assert page.first("title").startswith("Error: ")
    visitor.send(page, email="op@portal.example", password=PASSWORD)
    assert visitor.path == "/overview"


def test_a_made_up_set_up_link_opens_nothing(visitor: Visitor) -> None:
    accounts.set_up_token()
    visitor.open("/setup/guessed")
    assert visitor.status == 410
