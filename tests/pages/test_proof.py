"""Delicate acts ask who is there when the last proof is older than 15 minutes, and then go on with what was typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import time_machine
from flask import Flask

from extensions import db
from models import ApiKey, LoginSession, ProviderKey, User
from models.base import now, transaction
from services import keys, proof
from services.keys import Minted
from tests.factors import add_app, add_passkey, code_of, wrong
from tests.neighbours.fake_provider import GOOD_KEY, FakeProvider
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person

LATER = timedelta(minutes=15, seconds=1)


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested with both databases."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_PUBLIC_URL": "http://localhost:5000",
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
    }


@pytest.fixture
def later(owner: Visitor) -> Iterator[None]:
    """Alice signed in, and then 15 minutes have passed."""
    with time_machine.travel(now() + LATER, tick=True):
        yield


def asked(page: Html) -> bool:
    return page.first("h1") == "Is it you?"


def test_within_fifteen_minutes_nothing_is_asked(owner: Visitor) -> None:
    with time_machine.travel(now() + LATER - timedelta(seconds=20), tick=True):
        assert not asked(owner.open("/keys/new"))


def test_the_page_of_a_delicate_act_asks_first(owner: Visitor, alice: Person, later: None) -> None:
    page = owner.open("/keys/new?kind=secret")
    assert asked(page)
    assert owner.path == "/prove"
    page = owner.send(page, proof_password="not the right one")
    assert owner.status == 422
    assert "That is not your password" in page.text
    assert "not the right one" not in page.source
    owner.send(page, proof_password=alice.password)
    assert owner.answer is not None
    assert owner.answer.request.full_path == "/keys/new?kind=secret"
    assert not asked(owner.open("/keys/providers/new"))


def test_a_proof_renews_the_token_of_the_session(app: Flask, owner: Visitor, alice: Person, later: None) -> None:
    before = owner.client.get_cookie("portal")
    assert before is not None
    owner.send(owner.open("/keys/new"), proof_password=alice.password)
    assert owner.path == "/keys/new"
    copied = Visitor(app)
    copied.client.set_cookie("portal", before.value)
    copied.open("/overview")
    assert copied.path == "/sign-in"
    owner.open("/overview")
    assert owner.path == "/overview"
    assert db.session.query(LoginSession).count() == 1


def test_a_form_that_came_too_late_goes_on_with_what_was_typed(owner: Visitor, alice: Person) -> None:
    form = owner.open("/keys/new")
    with time_machine.travel(now() + LATER, tick=True):
        page = owner.send(form, name="A name that was typed", preset="one_by_one", scopes=["chat:write", "models:read"])
        assert asked(page)
        assert db.session.query(ApiKey).count() == 0
        page = owner.send(page, proof_password="wrong")
        assert owner.status == 422
        page = owner.send(page, proof_password=alice.password)
    assert "Save your new key" in page.text
    key = db.session.query(ApiKey).one()
    assert (key.name, key.scopes) == ("A name that was typed", ["chat:write", "models:read"])


def test_what_was_typed_is_carried_sealed(owner: Visitor, alice: Person) -> None:
    form = owner.open("/keys/providers/new")
    with time_machine.travel(now() + LATER, tick=True):
        page = owner.send(form, key=GOOD_KEY, label="Typed label")
        assert asked(page)
        assert GOOD_KEY not in page.source
        assert "Typed label" not in page.source
        page = owner.send(page, proof_password=alice.password)
    assert "The OpenAI key is saved. It works." in page.text
    assert db.session.query(ProviderKey).one().label == "Typed label"


def test_a_carried_form_holds_for_its_session_its_address_and_an_hour(
    app: Flask, owner: Visitor, alice: Person, mint: Callable[..., Minted]
) -> None:
    first, second = mint("first"), mint("second")
    start = now()
    form = owner.open(f"/keys/{first.key.id}/delete")
    with time_machine.travel(start + LATER, tick=True):
        page = owner.send(form)
        carried = dict(page.main_form.fields)["proof_carried"]
        other = Visitor(app).sign_in(alice)
        for visitor, key_id, value in [
            (other, first.key.id, carried),
            (owner, second.key.id, carried),
            (owner, first.key.id, "nonsense"),
            (owner, first.key.id, "näher"),
            (owner, first.key.id, ""),
        ]:
            answer = visitor.one_request(
                "POST",
                f"/keys/{key_id}/delete",
                data={"csrf_token": visitor.token(), "proof_carried": value, "proof_password": alice.password},
            )
            assert answer.status_code == 400
    with time_machine.travel(start + LATER + timedelta(hours=1, minutes=1), tick=True):
        owner.send(page, proof_password=alice.password)
        assert owner.status == 400
    assert {key.name for key in keys.living(alice.workspace)} == {"first", "second"}


def test_a_form_that_is_too_large_to_be_carried_is_refused_in_words(owner: Visitor, later: None) -> None:
    page = owner.post_by_hand("/keys/new", name="x" * 150_000)
    assert owner.status == 400
    assert "too large to be kept" in page.text


def test_a_button_without_a_page_of_its_own_asks_too(
    owner: Visitor, alice: Person, mint: Callable[..., Minted]
) -> None:
    minted = mint("Server")
    keys.disable(alice.workspace, minted.key.id, actor=alice.actor)
    with time_machine.travel(now() + LATER, tick=True):
        page = owner.post_by_hand(f"/keys/{minted.key.id}/enable")
        assert asked(page)
        page = owner.send(page, proof_password=alice.password)
    assert "is enabled." in page.text
    assert owner.path == "/keys"


def test_who_has_a_second_factor_proves_with_it_and_not_with_the_password(
    owner: Visitor, alice: Person, later: None
) -> None:
    secret, codes = add_app(alice)
    page = owner.open("/keys/new")
    assert asked(page)
    assert "proof_password" not in page.main_form.names
    owner.post_by_hand("/prove", proof_password=alice.password)
    assert owner.path == "/prove"
    page = owner.submit("/prove?next=/keys/new", proof_code=wrong(secret))
    assert owner.status == 422
    owner.send(page, proof_code=code_of(secret))
    assert owner.path == "/keys/new"
    with time_machine.travel(now() + LATER, tick=True):
        owner.submit("/prove?next=/keys/new", proof_code=codes[0])
        assert owner.path == "/keys/new"
    assert db.session.query(LoginSession).one().methods == ["password", "totp", "recovery_code"]


def test_wrong_codes_of_a_proof_count_with_those_of_sign_ins(owner: Visitor, alice: Person, later: None) -> None:
    secret, _ = add_app(alice)
    page = owner.open("/prove")
    for _ in range(10):
        page = owner.send(page, proof_code=wrong(secret))
        assert "not right" in page.text
    page = owner.send(page, proof_code=code_of(secret))
    assert "Too many wrong codes" in page.text


def test_a_password_is_tried_ten_times_a_minute(owner: Visitor, alice: Person, later: None) -> None:
    page = owner.open("/keys/new")
    for _ in range(10):
        owner.send(page, proof_password="wrong")
        assert owner.status == 422
    owner.send(page, proof_password=alice.password)
    assert owner.status == 429


def test_a_passkey_is_a_proof_without_losing_the_form(owner: Visitor, alice: Person) -> None:
    device = add_passkey(alice)
    form = owner.open("/keys/new")
    with time_machine.travel(now() + LATER, tick=True):
        page = owner.send(form, name="With a passkey")
        token = dict(page.main_form.fields)["csrf_token"]
        options = owner.one_request("POST", "/prove/passkey", data={"csrf_token": token}).text
        owner.send(page, proof_passkey=device.use(options))
    assert [key.name for key in keys.living(alice.workspace)] == ["With a passkey"]


def test_who_has_neither_signs_in_again(owner: Visitor, alice: Person, later: None) -> None:
    with transaction() as session:
        session.get_one(User, alice.user_id).password_hash = ""
    page = owner.open("/keys/new")
    assert "Sign out, then sign in again the way you always do" in page.text
    owner.post_by_hand("/prove", proof_password="")
    assert owner.path == "/prove"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_a_proof_never_leads_to_another_host(owner: Visitor, alice: Person, later: None, target: str) -> None:
    page = Html(owner.one_request("GET", "/prove", query_string={"next": target}).text)
    assert "evil" not in page.main_form.action
    data = {**dict(page.main_form.fields), "proof_password": alice.password}
    answer = owner.one_request("POST", "/prove", query_string={"next": target}, data=data)
    assert answer.headers["Location"] == "/overview"


DELICATE = (
    "/keys/new",
    "/keys/KEY/edit",
    "/keys/KEY/rotate",
    "/keys/KEY/delete",
    "/keys/providers/new",
    "/usage/limits",
    "/account/app/new",
    "/account/app/remove",
    "/account/recovery-codes",
    "/account/passkeys/new",
)


def test_the_delicate_pages(owner: Visitor, mint: Callable[..., Minted]) -> None:
    minted = mint("Server")
    with time_machine.travel(now() + LATER, tick=True):
        for path in DELICATE:
            assert asked(owner.open(path.replace("KEY", minted.key.id))), path
        for path in ("/keys", "/overview", "/account/security", f"/keys/{minted.key.id}/disable"):
            assert not asked(owner.open(path)), path


def test_a_proof_of_the_future_is_none(owner: Visitor) -> None:
    """A clock that has been put right since noted it."""
    session = db.session.query(LoginSession).one()
    assert proof.is_recent(session)
    with time_machine.travel(now() - timedelta(hours=1), tick=True):
        assert not proof.is_recent(session)


def test_a_forged_proof_without_its_token_does_nothing(owner: Visitor, alice: Person, later: None) -> None:
    answer = owner.one_request("POST", "/prove", data={"proof_password": alice.password})
    assert answer.status_code == 400
    assert re.search("This form has expired", answer.text)
    assert asked(owner.open("/keys/new"))
