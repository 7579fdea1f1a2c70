"""Signing in with a second factor, and the pages of the second factor, by hand and without JavaScript."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
import time_machine
from flask import Flask

from extensions import db
from models import LoginSession, TotpSecret
from models.base import now
from services import second_factor, sign_in
from tests.factors import add_app, add_passkey, code_of, user_of, wrong
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested with both databases."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"ARKA_PUBLIC_URL": "http://localhost:5000"}


def first_step(visitor: Visitor, person: Person, path: str = "/sign-in", **more: str) -> Html:
    return visitor.submit(path, email=person.email, password=person.password, **more)


# ---- the second step


def test_after_the_password_a_code_is_asked_and_then_one_is_where_one_wanted(visitor: Visitor, alice: Person) -> None:
    secret, _ = add_app(alice)
    page = first_step(visitor, alice, "/keys?page=1")
    assert visitor.path == "/sign-in/code"
    assert page.first("title") == "Second step · Sign in · ARKA"
    assert "API Keys" not in page.text
    code = code_of(secret)
    visitor.send(page, code=f"{code[:3]} {code[3:]}")
    assert visitor.answer is not None
    assert visitor.answer.request.full_path == "/keys?page=1"


def test_between_the_steps_nothing_is_open(visitor: Visitor, alice: Person) -> None:
    add_app(alice)
    first_step(visitor, alice)
    for path in ("/overview", "/keys", "/account/security", "/prove", "/workspaces"):
        visitor.open(path)
        assert visitor.path == "/sign-in"


def test_whatever_is_wrong_with_a_code_one_sentence_is_said(visitor: Visitor, alice: Person) -> None:
    pages = []
    with time_machine.travel(now(), tick=False):
        secret, codes = add_app(alice)
        first_step(visitor, alice)
        for given in (wrong(secret), code_of(secret, -1), codes[0][:-1], "nonsense"):
            page = visitor.submit("/sign-in/code", code=given)
            assert visitor.status == 422
            pages.append(re.sub(r'value="[^"]*"', "", page.source))
    assert len(set(pages)) == 1
    assert "That code is not right, or it was used before" in pages[0]


def test_after_five_wrong_codes_one_begins_again(visitor: Visitor, alice: Person) -> None:
    secret, _ = add_app(alice)
    page = first_step(visitor, alice, "/keys")
    for _ in range(sign_in.MOST_TRIES):
        assert visitor.path == "/sign-in/code"
        page = visitor.send(page, code=wrong(secret))
    assert visitor.path == "/sign-in"
    assert "Sign in again." in page.text
    page = visitor.send(page, email=alice.email, password=alice.password)
    visitor.send(page, code=code_of(secret))
    assert visitor.path == "/keys"


def test_too_many_wrong_codes_point_to_the_other_ways(visitor: Visitor, alice: Person) -> None:
    secret, codes = add_app(alice)
    for _ in range(2):
        page = first_step(visitor, alice)
        for _ in range(5):
            page = visitor.send(page, code=wrong(secret))
    page = first_step(visitor, alice)
    page = visitor.send(page, code=code_of(secret))
    assert "Too many wrong codes. Use a recovery code or a passkey" in page.text
    visitor.send(page, code=codes[0].upper())
    assert visitor.path == "/overview"


def test_the_page_of_the_second_step_needs_a_first_one(visitor: Visitor, alice: Person) -> None:
    add_app(alice)
    visitor.open("/sign-in/code")
    assert visitor.path == "/sign-in"


def test_the_session_is_new_and_the_attempt_is_gone(visitor: Visitor, alice: Person) -> None:
    secret, _ = add_app(alice)
    page = first_step(visitor, alice)
    with visitor.client.session_transaction() as session:
        attempt = session["sign_in_attempt"]
        session["planted"] = "by somebody else"
    visitor.send(page, code=code_of(secret))
    with visitor.client.session_transaction() as session:
        assert "planted" not in session
        assert "sign_in_attempt" not in session
        assert session["_user_id"] != attempt


@pytest.mark.parametrize("remembered", [True, False])
def test_the_cookie_ends_with_the_browser_unless_one_is_remembered(
    visitor: Visitor, alice: Person, remembered: bool
) -> None:
    secret, _ = add_app(alice)
    page = first_step(visitor, alice, **({"remember": "y"} if remembered else {}))
    visitor.send(page, code=code_of(secret))
    cookie = visitor.client.get_cookie("portal")
    assert cookie is not None
    assert (cookie.expires is not None) is remembered
    assert db.session.query(LoginSession).one().remembered is remembered


# ---- setting up


def test_an_app_is_set_up_with_a_picture_and_a_secret_and_the_codes_are_shown_once(
    owner: Visitor, alice: Person
) -> None:
    page = owner.open("/account/security")
    form = next(form for form in page.forms if form.action == "/account/app")
    page = Html(owner.request("POST", form.action, data=dict(form.fields)).text)
    secret = dict(re.findall(r'id="(secret)" value="([A-Z2-7 ]+)"', page.source))["secret"].replace(" ", "")
    assert "<svg" in page.source
    assert "style=" not in page.source
    page = owner.submit("/account/app/new", code="12")
    assert owner.status == 422
    page = owner.send(page, code=code_of(secret))
    assert owner.answer is not None
    assert owner.answer.headers["Cache-Control"] == "no-store"
    codes = re.findall(r"\b[0-9a-z]{4}(?:-[0-9a-z]{4}){3}\b", page.inner["textarea"][0])
    assert len(codes) == 10
    (download,) = [link for link in page.links if link.startswith("data:text/plain")]
    assert all(code in download for code in codes)
    page = owner.open("/account/security")
    assert "10 codes left" in page.text
    assert not any(code in page.source for code in codes)
    owner.open("/account/app/new")
    assert owner.path == "/account/security"
    standing = second_factor.standing(user_of(alice))
    assert standing.app


def test_new_codes_are_not_made_twice_by_one_form(owner: Visitor, alice: Person) -> None:
    add_app(alice)
    form = owner.open("/account/recovery-codes")
    first = owner.send(form)
    assert "Save these codes now" in first.text
    second = owner.send(form)
    assert "These codes were already shown" in second.text
    code = first.inner["textarea"][0].split()[0]
    assert code not in second.source


def test_without_a_second_factor_there_is_nothing_to_remove(owner: Visitor) -> None:
    for path in ("/account/app/remove", "/account/recovery-codes", "/account/app/new"):
        owner.open(path)
        assert owner.path == "/account/security"


def test_removing_the_app_asks_for_the_password(owner: Visitor, alice: Person) -> None:
    add_app(alice)
    page = owner.submit("/account/app/remove", password="not the right one")
    assert owner.status == 422
    assert "Enter your present password" in page.text
    assert "not the right one" not in page.source
    owner.send(page, password=alice.password)
    assert owner.path == "/account/security"
    assert db.session.query(TotpSecret).count() == 0


# ---- passkeys without a script


def test_pages_say_that_passkeys_need_a_script(visitor: Visitor, owner: Visitor, alice: Person) -> None:
    assert "Passkeys need JavaScript" in visitor.open("/sign-in").text
    assert "Passkeys need JavaScript" in owner.open("/account/passkeys/new").text
    page = owner.submit("/account/passkeys/new", name="Mine")
    assert owner.status == 422
    assert "This took too long" in page.text or "did not send a passkey" in page.text


def test_a_passkey_made_up_by_hand_signs_nobody_in(visitor: Visitor, alice: Person) -> None:
    device = add_passkey(alice)
    page = visitor.open("/sign-in")
    token = dict(page.main_form.fields)["csrf_token"]
    options = visitor.one_request("POST", "/sign-in/passkey/options", data={"csrf_token": token}).text
    device.origin = "https://evil.example"
    answer = visitor.one_request("POST", "/sign-in/passkey", data={"csrf_token": token, "passkey": device.use(options)})
    assert answer.status_code == 422
    assert "That passkey was not accepted" in answer.text
    device.origin = "http://localhost:5000"
    good = device.use(options)
    answer = visitor.one_request("POST", "/sign-in/passkey", data={"csrf_token": token, "passkey": good})
    assert answer.status_code == 422
    options = visitor.one_request("POST", "/sign-in/passkey/options", data={"csrf_token": token}).text
    data = {"csrf_token": token, "passkey": device.use(options), "remember": "y"}
    answer = visitor.one_request("POST", "/sign-in/passkey", query_string={"next": "/keys"}, data=data)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/keys")
    assert db.session.query(LoginSession).one().remembered


def test_another_browser_cannot_answer_a_challenge(visitor: Visitor, app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    tokens = []
    for one in (visitor, Visitor(app)):
        tokens.append((one, dict(one.open("/sign-in").main_form.fields)["csrf_token"]))
    (first, mine), (second, theirs) = tokens
    options = first.one_request("POST", "/sign-in/passkey/options", data={"csrf_token": mine}).text
    second.one_request("POST", "/sign-in/passkey/options", data={"csrf_token": theirs})
    data = {"csrf_token": theirs, "passkey": device.use(options)}
    assert second.one_request("POST", "/sign-in/passkey", data=data).status_code == 422


def test_the_options_name_nobody(visitor: Visitor, alice: Person) -> None:
    add_passkey(alice)
    token = dict(visitor.open("/sign-in").main_form.fields)["csrf_token"]
    options = json.loads(visitor.one_request("POST", "/sign-in/passkey/options", data={"csrf_token": token}).text)
    assert options["allowCredentials"] == []
    assert options["rpId"] == "localhost"


def test_a_passkey_is_renamed_and_deleted(owner: Visitor, alice: Person) -> None:
    add_app(alice)
    add_passkey(alice, name="<b>Laptop</b>")
    page = owner.open("/account/security")
    assert "<b>Laptop</b>" in page.text
    (rename,) = [link for link in page.links if link.endswith("/rename")]
    owner.submit(rename, name="")
    assert owner.status == 422
    page = owner.submit(rename, name="Work laptop")
    assert "Work laptop" in page.text
    page = owner.submit(rename.replace("rename", "delete"))
    assert "The passkey “Work laptop” is deleted." in page.text
    assert "10 codes left" in page.text


class TestWhereNoPasskeysArePossible:
    @pytest.fixture
    def environment(self, environment: dict[str, str]) -> dict[str, str]:
        return environment | {"ARKA_PUBLIC_URL": "http://127.0.0.1:5000"}

    def test_none_are_offered_and_the_page_says_why(self, visitor: Visitor, owner: Visitor) -> None:
        assert "asskey" not in visitor.open("/sign-in").text
        assert (
            "Passkeys need this portal to be reached by HTTPS, or as localhost" in owner.open("/account/security").text
        )
        assert "/account/passkeys/new" not in owner.open("/account/security").links
        token = owner.token()
        answer = owner.one_request("POST", "/sign-in/passkey/options", data={"csrf_token": token})
        assert answer.status_code == 400


def test_a_session_that_is_not_used_for_half_a_day_is_over(owner: Visitor) -> None:
    owner.open("/overview")
    with time_machine.travel(now() + timedelta(hours=12, minutes=1), tick=False):
        owner.open("/overview")
        assert owner.path == "/sign-in"
