"""Sign-up, sign-in, sign-out and the operator's first start."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from sqlalchemy import func, select

from extensions import db
from models import LoginSession, User
from services import accounts
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person


def users() -> int:
    return db.session.scalar(select(func.count()).select_from(User)) or 0


# ---- sign-up


def test_whoever_signs_up_has_a_workspace_on_the_first_plan(visitor: Visitor) -> None:
    page = visitor.submit("/sign-up", email=" Erin@New.Example ", password=PASSWORD)
    assert visitor.path == "/overview"
    assert "Your account is ready." in page.text
    assert "Starter" in page.text
    assert page.first("title") == "Overview · erin · ARKA"


@pytest.mark.parametrize(
    ("email", "password", "sentence"),
    [
        ("", PASSWORD, "Enter your e-mail address"),
        ("nobody", PASSWORD, "Enter an e-mail address like name@example.com"),
        ("erin@new.example", "", "Enter a password"),
        ("erin@new.example", "short", "Use at least 15 characters"),
    ],
)
def test_sign_up_says_what_is_wrong_at_the_field_and_above_the_title(
    visitor: Visitor, email: str, password: str, sentence: str
) -> None:
    page = visitor.submit("/sign-up", email=email, password=password)
    assert visitor.status == 422
    assert page.first("title").startswith("Error: Create an account")
    assert page.text.count(sentence) == 2
    assert page.text.index("There is a problem") < page.text.index(page.first("h1"), 40)
    assert users() == 0


def test_all_faults_are_told_at_once_and_only_the_password_is_forgotten(visitor: Visitor) -> None:
    page = visitor.submit("/sign-up", email="nobody", password="too-short-42")
    assert "#email" in page.links
    assert "#password" in page.links
    assert "too-short-42" not in page.source
    assert ("email", "nobody") in page.main_form.fields


def test_a_double_click_on_create_account_makes_one_account(visitor: Visitor) -> None:
    form = visitor.open("/sign-up")
    visitor.send(form, email="erin@new.example", password=PASSWORD)
    visitor.post_by_hand("/sign-up", email="erin@new.example", password=PASSWORD)
    assert visitor.path == "/overview"
    assert users() == 1


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


@pytest.mark.parametrize("path", ["/sign-in", "/sign-up", "/sign-out", "/workspaces", "/keys/new"])
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
    assert re.search(r"Too many attempts .*Try again at \d\d:\d\d UTC\.", page.text)
    assert visitor.answer is not None
    assert 0 < int(visitor.answer.headers["Retry-After"]) <= 61
    visitor.send(form, email="somebody@else.example", password="a wrong password")
    assert visitor.status == 422


def test_sixty_sign_ups_from_one_address_in_a_minute(visitor: Visitor) -> None:
    form = visitor.open("/sign-up")
    for _ in range(60):
        visitor.send(form, email="nobody", password="")
        assert visitor.status == 422
    visitor.send(form, email="nobody", password="")
    assert visitor.status == 429
    visitor.open("/sign-up")
    assert visitor.status == 200


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
