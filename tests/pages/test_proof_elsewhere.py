"""Who has nothing but an identity provider to sign in with proves there who is there, before delicate acts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import time_machine
from flask import Flask
from playwright.sync_api import Browser, expect

from extensions import db
from models import ExternalIdentity, LoginSession, ProviderKey, SignInAttempt, User
from models.base import new_id, now, transaction
from tests.neighbours.fake_provider import GOOD_KEY, FakeProvider
from tests.neighbours.oidc_provider import OidcProvider, settings_of
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person

LATER = timedelta(minutes=15, seconds=1)


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What is asked of the provider is the same for every database."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str], oidc: OidcProvider, provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        **settings_of(oidc),
    }


@pytest.fixture
def erin(owner: Visitor, alice: Person, oidc: OidcProvider) -> Visitor:
    """Alice's browser; from now on she can sign in at the provider alone."""
    with transaction() as session:
        session.get_one(User, alice.user_id).password_hash = ""
        session.add(
            ExternalIdentity(
                id=new_id("ext"),
                user_id=alice.user_id,
                issuer=oidc.url,
                subject=oidc.person.subject,
                created_at=now(),
            )
        )
    return owner


@pytest.fixture
def typed(erin: Visitor) -> Iterator[Html]:
    """A form was opened, and sent when the last proof was too old: the question that came instead."""
    form = erin.open("/keys/providers/new")
    with time_machine.travel(now() + LATER, tick=True):
        yield erin.send(form, key=GOOD_KEY, label="Typed label")


def there_and_back(visitor: Visitor, oidc: OidcProvider, question: Html) -> Html:
    page = visitor.send(question)
    assert visitor.answer is not None
    assert page.first("h1") == "Going to Northwind ID"
    url = visitor.answer.headers["Refresh"].removeprefix("0; url=")
    assert url in page.links
    back = urlsplit(oidc.approve(url))
    return visitor.open(f"{back.path}?{back.query}")


def asked(page: Html) -> bool:
    return page.first("h1") == "Is it you?"


def test_a_form_that_came_too_late_goes_on_after_the_way_to_the_provider(
    erin: Visitor, oidc: OidcProvider, typed: Html
) -> None:
    assert asked(typed)
    assert GOOD_KEY not in typed.source
    before = erin.client.get_cookie("portal")
    page = there_and_back(erin, oidc, typed)
    assert (oidc.asked["prompt"], oidc.asked["max_age"]) == ("login", "0")
    assert page.first("h1") == "It is you"
    assert GOOD_KEY not in page.source
    page = erin.send(page)
    assert "The OpenAI key is saved. It works." in page.text
    assert db.session.query(ProviderKey).one().label == "Typed label"
    assert erin.client.get_cookie("portal") != before
    assert db.session.query(SignInAttempt).count() == 0
    assert db.session.query(LoginSession).one().methods == ["password", "oidc"]


def test_a_page_that_asks_first_is_opened_afterwards(erin: Visitor, oidc: OidcProvider) -> None:
    with time_machine.travel(now() + LATER, tick=True):
        page = erin.open("/keys/new?kind=secret")
        assert asked(page)
        there_and_back(erin, oidc, page)
        assert erin.answer is not None
        assert erin.answer.request.full_path == "/keys/new?kind=secret"


@pytest.mark.parametrize(
    "auth_time",
    [None, "now", True, -61, -900, 3600],
    ids=["none", "text", "true", "a minute ago", "quarter of an hour ago", "in an hour"],
)
def test_who_did_not_sign_in_there_just_now_has_proved_nothing(
    erin: Visitor, oidc: OidcProvider, typed: Html, auth_time: object
) -> None:
    is_number = isinstance(auth_time, int) and not isinstance(auth_time, bool)
    # A minute is allowed for clocks that differ.
    oidc.claims = {"auth_time": int(time.time()) + auth_time if is_number else auth_time}
    page = there_and_back(erin, oidc, typed)
    assert erin.status == 422
    assert asked(page)
    assert "The identity provider did not confirm that it is you, now." in page.text
    assert db.session.query(ProviderKey).count() == 0
    assert asked(erin.open("/keys/new"))
    # What was typed is still there for the next try.
    oidc.claims = {}
    erin.send(there_and_back(erin, oidc, page))
    assert db.session.query(ProviderKey).one().label == "Typed label"


def test_somebody_else_there_has_proved_nothing(
    erin: Visitor, oidc: OidcProvider, typed: Html, charlie: Person
) -> None:
    for is_known in (False, True):
        oidc.person.subject = "person-2"
        if is_known:
            with transaction() as session:
                session.add(
                    ExternalIdentity(
                        id="ext_other", user_id=charlie.user_id, issuer=oidc.url, subject="person-2", created_at=now()
                    )
                )
        page = there_and_back(erin, oidc, typed)
        assert erin.status == 422
        assert "did not confirm that it is you" in page.text
        assert asked(erin.open("/keys/new"))
    assert db.session.query(User).count() == 2


def test_the_answer_counts_for_the_session_that_asked(
    app: Flask, erin: Visitor, oidc: OidcProvider, alice: Person
) -> None:
    with time_machine.travel(now() + LATER, tick=True):
        erin.send(erin.open("/keys/new"))
        assert erin.answer is not None
        back = urlsplit(oidc.approve(erin.answer.headers["Refresh"].removeprefix("0; url=")))
        stranger = Visitor(app)
        page = stranger.open(f"{back.path}?{back.query}")
        assert stranger.status == 403
        assert page.first("h1") == "You could not be signed in"
        # The session has ended meanwhile.
        with transaction() as session:
            session.query(LoginSession).delete()
        erin.open(f"{back.path}?{back.query}")
        assert erin.status == 403
        assert db.session.query(LoginSession).count() == 0


def test_a_provider_that_is_away_loses_nothing_that_was_typed(erin: Visitor, oidc: OidcProvider, typed: Html) -> None:
    oidc.fault = 503
    page = erin.send(typed)
    assert erin.status == 503
    assert asked(page)
    assert "The identity provider does not answer." in page.text
    oidc.fault = None
    erin.send(there_and_back(erin, oidc, page))
    assert db.session.query(ProviderKey).one().label == "Typed label"


def test_who_has_something_to_show_here_shows_that(owner: Visitor, alice: Person, oidc: OidcProvider) -> None:
    with time_machine.travel(now() + LATER, tick=True):
        page = owner.open("/keys/new")
        assert "Continue with Northwind ID" not in page.text
        owner.post_by_hand("/prove/elsewhere", next="/keys/new")
        assert owner.status == 404


def test_only_a_form_of_this_session_and_address_goes_along(erin: Visitor, oidc: OidcProvider, typed: Html) -> None:
    carried = dict(typed.main_form.fields)["proof_carried"]
    for goal, value in (("/keys/new", carried), ("", carried), ("/keys/providers/new?", "x" * 1000)):
        erin.post_by_hand("/prove/elsewhere", next=goal, proof_carried=value)
        assert erin.status == 400
    assert db.session.query(SignInAttempt).count() == 0


@pytest.mark.parametrize("goal", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_it_never_leads_to_another_host(erin: Visitor, oidc: OidcProvider, goal: str) -> None:
    with time_machine.travel(now() + LATER, tick=True):
        erin.post_by_hand("/prove/elsewhere", next=goal)
        assert erin.answer is not None
        back = urlsplit(oidc.approve(erin.answer.headers["Refresh"].removeprefix("0; url=")))
        erin.open(f"{back.path}?{back.query}")
        assert erin.path == "/overview"


def test_the_policy_of_the_pages_lets_a_browser_go_there_and_back(
    site: str, erin: Visitor, oidc: OidcProvider, browser: Browser
) -> None:
    """A form may not lead to another host, and a redirect after it neither."""
    # The provider leads back to the address of the settings; the answer is brought to where this server listens.
    oidc.back_to = site
    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.set_default_timeout(10_000)
    cookie = erin.client.get_cookie("portal")
    assert cookie is not None
    context.add_cookies([{"name": "portal", "value": cookie.value, "url": site}])
    with time_machine.travel(now() + LATER, tick=True):
        page.goto("/keys/new?kind=secret")
        page.get_by_role("button", name="Continue with Northwind ID").click()
        expect(page.get_by_role("heading", level=1)).not_to_have_text("Is it you?")
        page.wait_for_url("**/keys/new?kind=secret")
        expect(page.locator("form input[name=name]")).to_be_visible()
    context.close()
