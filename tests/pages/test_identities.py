"""Signing in through the operator's identity provider: a real one, which can be made to lie."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from extensions import db
from models import ExternalIdentity, LoginSession, TotpSecret, User
from models.base import now, transaction
from services import accounts
from services.secret import Secret
from tests import mailbox
from tests.neighbours.oidc_provider import CLIENT_ID, OidcProvider, settings_of
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person

BACK = "/sign-in/elsewhere/back"


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What is asked of the provider is the same for every database."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str], oidc: OidcProvider) -> dict[str, str]:
    return environment | {
        **settings_of(oidc),
    }


def way_back(visitor: Visitor, oidc: OidcProvider, start: str = "/sign-in/elsewhere") -> str:
    """Go to the provider and return the path, with its answer, to which it sends the browser back."""
    answer = visitor.one_request("GET", start)
    assert answer.status_code == 303, answer.text
    url = urlsplit(oidc.approve(answer.headers["Location"]))
    return f"{url.path}?{url.query}"


def enter(visitor: Visitor, oidc: OidcProvider, start: str = "/sign-in/elsewhere") -> Html:
    return visitor.open(way_back(visitor, oidc, start))


def refused(visitor: Visitor, page: Html, status: int = 403) -> bool:
    assert db.session.query(LoginSession).count() == 0
    return visitor.status == status and page.first("h1") == "You could not be signed in"


def test_who_comes_for_the_first_time_gets_an_account_and_comes_back_to_it(
    app: Flask, visitor: Visitor, oidc: OidcProvider
) -> None:
    page = visitor.open("/sign-in")
    assert "Sign in with Northwind ID" in page.text
    enter(visitor, oidc)
    assert visitor.path == "/overview"
    user = db.session.query(User).one()
    assert (user.email, user.password_hash) == ("erin@new.example", "")
    assert user.email_confirmed_at is not None
    assert db.session.query(LoginSession).one().methods == ["oidc"]
    # Their address there may change: they are known by issuer and subject.
    oidc.person.email = "somebody@else.example"
    again = Visitor(app)
    enter(again, oidc)
    assert again.path == "/overview"
    assert db.session.query(User).count() == 1


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_other_algorithms_with_a_key_pair_are_taken(visitor: Visitor, oidc: OidcProvider, algorithm: str) -> None:
    oidc.algorithm = algorithm
    oidc.change_key()
    enter(visitor, oidc)
    assert visitor.path == "/overview"


def test_it_leads_to_where_one_wanted_to_go_and_to_no_other_host(visitor: Visitor, oidc: OidcProvider) -> None:
    enter(visitor, oidc, "/sign-in/elsewhere?next=/account/security")
    assert visitor.path == "/account/security"
    visitor.post_by_hand("/sign-out")
    enter(visitor, oidc, "/sign-in/elsewhere?next=//evil.example/")
    assert visitor.path == "/overview"


@pytest.mark.parametrize(
    "lie",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another client"]},
        {"iss": "https://evil.example"},
        pytest.param({"exp": int(time.time()) - 3600}, id="exp=an hour ago"),
        {"exp": None},
        pytest.param({"iat": int(time.time()) + 3600}, id="iat=in an hour"),
        {"sub": ""},
        {"sub": None},
        {"sub": 7},
        {"sub": "x" * 256},
        pytest.param({"nbf": int(time.time()) + 3600}, id="nbf=in an hour"),
    ],
    ids=lambda lie: "{}={!s:.8}".format(*next(iter(lie.items()))),
)
def test_a_token_that_was_not_made_for_this_sign_in_is_refused(
    visitor: Visitor, oidc: OidcProvider, lie: dict[str, object]
) -> None:
    oidc.claims = lie
    assert refused(visitor, enter(visitor, oidc))
    assert db.session.query(User).count() == 0


@pytest.mark.parametrize("signature", ["none", "hmac", "forged"])
def test_a_token_that_the_provider_did_not_sign_is_refused(
    visitor: Visitor, oidc: OidcProvider, signature: str
) -> None:
    oidc.signature = signature
    assert refused(visitor, enter(visitor, oidc))


def test_an_answer_counts_once_and_in_the_browser_that_asked(app: Flask, visitor: Visitor, oidc: OidcProvider) -> None:
    path = way_back(visitor, oidc)
    stranger = Visitor(app)
    assert refused(stranger, stranger.open(path))
    visitor.open(path)
    assert visitor.path == "/overview"
    visitor.post_by_hand("/sign-out")
    assert refused(visitor, visitor.open(path))


@pytest.mark.parametrize("change", ["state=", "state=guessed", "nothing=", "error=access_denied"])
def test_without_its_state_or_code_an_answer_is_refused(visitor: Visitor, oidc: OidcProvider, change: str) -> None:
    query = parse_qs(urlsplit(way_back(visitor, oidc)).query)
    told = {"code": f"code={query['code'][0]}", "state": f"state={query['state'][0]}"}
    name = change.partition("=")[0]
    parts = {"nothing": [], "error": [told["state"], change]}.get(name, [told["code"], change])
    assert refused(visitor, visitor.open(f"{BACK}?{'&'.join(parts)}"))


def test_a_code_that_somebody_else_was_given_is_refused(app: Flask, visitor: Visitor, oidc: OidcProvider) -> None:
    """The verifier of PKCE belongs to the browser that asked."""
    code = parse_qs(urlsplit(way_back(Visitor(app), oidc)).query)["code"][0]
    state = parse_qs(urlsplit(way_back(visitor, oidc)).query)["state"][0]
    assert refused(visitor, visitor.open(f"{BACK}?code={code}&state={state}"))


def test_a_new_key_of_the_provider_is_found(
    visitor: Visitor, oidc: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.oidc._LEAST_PAUSE_SECONDS", 0)
    enter(visitor, oidc)
    visitor.post_by_hand("/sign-out")
    oidc.change_key()
    enter(visitor, oidc)
    assert visitor.path == "/overview"
    assert oidc.requests.count("/jwks") == 2
    assert oidc.requests.count("/.well-known/openid-configuration") == 1


def test_a_provider_that_is_away_is_said_and_other_ways_stay(
    visitor: Visitor, oidc: OidcProvider, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = way_back(visitor, oidc)
    oidc.fault = 502
    assert refused(visitor, visitor.open(path), 503)
    oidc.fault, oidc.delay_seconds = None, 3
    monkeypatch.setattr("services.oidc._TOTAL_SECONDS", 0.3)
    began = time.monotonic()
    stuck = visitor.open("/sign-in/elsewhere/back?state=x")
    assert refused(visitor, stuck)
    assert time.monotonic() - began < 2
    assert visitor.sign_in(alice).path == "/overview"


def test_a_provider_that_is_away_at_the_start_is_said(app: Flask, visitor: Visitor, oidc: OidcProvider) -> None:
    oidc.fault = 500
    page = visitor.open("/sign-in/elsewhere")
    assert visitor.status == 503
    assert "identity provider does not answer" in page.text
    oidc.fault, oidc.metadata = None, {"issuer": "https://evil.example"}
    visitor.open("/sign-in/elsewhere")
    assert visitor.status == 503
    oidc.metadata = {"authorization_endpoint": "ftp://evil.example/"}
    visitor.open("/sign-in/elsewhere")
    assert visitor.status == 503


@pytest.mark.parametrize("verified", [False, None, "no"])
def test_an_address_that_is_not_verified_opens_nothing(
    visitor: Visitor, oidc: OidcProvider, alice: Person, verified: object
) -> None:
    oidc.person.email, oidc.person.email_verified = alice.email, verified
    page = enter(visitor, oidc)
    assert refused(visitor, page)
    assert "Northwind ID has not verified your e-mail address" in page.text


def test_an_address_told_at_the_userinfo_endpoint_counts_too(visitor: Visitor, oidc: OidcProvider) -> None:
    oidc.email_by_userinfo = True
    enter(visitor, oidc)
    assert visitor.path == "/overview"


# ---- an account that has the address already


def test_the_owner_of_an_account_signs_in_once_and_agrees(
    app: Flask, visitor: Visitor, oidc: OidcProvider, alice: Person
) -> None:
    oidc.person.email = alice.email
    page = enter(visitor, oidc)
    assert visitor.path == "/sign-in"
    assert "There is an account for your address already." in page.text
    assert db.session.query(ExternalIdentity).count() == 0
    page = visitor.send(page, email=alice.email, password=alice.password)
    assert page.first("h1") == "Connect Northwind ID"
    assert db.session.query(ExternalIdentity).count() == 0
    visitor.send(page)
    assert db.session.query(ExternalIdentity).one().user_id == alice.user_id
    assert mailbox.subjects(alice.email) == ["Sign-in with Northwind ID was added"]
    again = Visitor(app)
    enter(again, oidc)
    assert again.path == "/overview"
    assert db.session.query(User).count() == 1


def test_somebody_else_cannot_take_the_offer(
    app: Flask, visitor: Visitor, oidc: OidcProvider, alice: Person, charlie: Person
) -> None:
    oidc.person.email = alice.email
    page = enter(visitor, oidc)
    visitor.send(page, email=charlie.email, password=charlie.password)
    assert visitor.status == 410
    assert db.session.query(ExternalIdentity).count() == 0


def test_a_trusted_provider_enters_the_account_at_once(
    environment: dict[str, str], oidc: OidcProvider, request: pytest.FixtureRequest
) -> None:
    environment["ARKA_OIDC_TRUSTED"] = "1"
    alice: Person = request.getfixturevalue("alice")
    oidc.person.email = alice.email
    visitor = Visitor(request.getfixturevalue("app"))
    enter(visitor, oidc)
    assert visitor.path == "/overview"
    assert db.session.query(ExternalIdentity).one().user_id == alice.user_id
    assert mailbox.subjects(alice.email) == ["Sign-in with Northwind ID was added"]


def test_an_address_that_was_only_asked_for_is_in_nobodys_way(visitor: Visitor, oidc: OidcProvider) -> None:
    visitor.submit("/sign-up", email="erin@new.example")
    link = mailbox.link("erin@new.example", "/confirm/")
    enter(visitor, oidc)
    assert visitor.path == "/overview"
    visitor.open(link)
    assert visitor.status == 410


def test_a_closed_account_stays_closed(visitor: Visitor, oidc: OidcProvider) -> None:
    enter(visitor, oidc)
    user = db.session.query(User).one()
    accounts.close(user, accounts.actor_of(user, None, None))
    visitor.open("/overview")
    assert visitor.path == "/sign-in"
    page = enter(visitor, oidc)
    assert refused(visitor, page)
    assert "do not match an account" in page.text


# ---- the second factor


@pytest.mark.parametrize(("counts", "page"), [("0", "/sign-in/code"), ("1", "/overview")])
def test_our_second_factor_is_asked_for_unless_the_providers_counts(
    environment: dict[str, str], oidc: OidcProvider, request: pytest.FixtureRequest, counts: str, page: str
) -> None:
    environment["ARKA_OIDC_SECOND_FACTOR"] = counts
    app = request.getfixturevalue("app")
    enter(Visitor(app), oidc)
    user = db.session.query(User).one()
    with transaction() as session:
        session.add(TotpSecret(id="totp_x", user_id=user.id, sealed="unreadable", created_at=now(), confirmed_at=now()))
    visitor = Visitor(app)
    enter(visitor, oidc)
    assert visitor.path == page


# ---- who may make an account


@pytest.mark.parametrize(
    ("settings", "entered", "words"),
    [
        ({"ARKA_SIGN_UP": "closed"}, False, "Sign-up is closed"),
        ({"ARKA_SIGN_UP": "closed", "ARKA_OIDC_DOMAINS": "new.example"}, True, ""),
        ({"ARKA_OIDC_DOMAINS": "other.example, more.example"}, False, "Addresses of your domain"),
    ],
)
def test_the_operator_decides_who_may_make_an_account(
    environment: dict[str, str],
    oidc: OidcProvider,
    request: pytest.FixtureRequest,
    settings: dict[str, str],
    entered: bool,
    words: str,
) -> None:
    environment.update(settings)
    visitor = Visitor(request.getfixturevalue("app"))
    page = enter(visitor, oidc)
    assert (visitor.path == "/overview") is entered
    assert words in page.text
    assert db.session.query(User).count() == int(entered)


# ---- connecting and disconnecting


def test_an_identity_is_connected_and_disconnected_on_the_account_page(
    app: Flask, owner: Visitor, oidc: OidcProvider, alice: Person
) -> None:
    assert "Connect Northwind ID" in owner.open("/account/security").text
    page = enter(owner, oidc, "/account/identities/connect")
    assert "You can sign in with Northwind ID from now on." in page.text
    assert oidc.asked["prompt"] == "login"
    row = db.session.query(ExternalIdentity).one()
    assert row.user_id == alice.user_id
    owner.post_by_hand(f"/account/identities/{row.id}/remove")
    assert db.session.query(ExternalIdentity).count() == 0
    assert mailbox.subjects(alice.email)[-1] == "Sign-in with Northwind ID was removed"


def test_the_only_way_in_cannot_be_removed(visitor: Visitor, oidc: OidcProvider) -> None:
    enter(visitor, oidc)
    row = db.session.query(ExternalIdentity).one()
    assert "It is the only way into your account." in visitor.open("/account/security").text
    page = visitor.post_by_hand(f"/account/identities/{row.id}/remove")
    assert "It is the only way into your account." in page.text
    assert db.session.query(ExternalIdentity).count() == 1
    visitor.submit("/account/password", password="quite another long phrase")
    assert accounts.check_password("erin@new.example", Secret("quite another long phrase"))
    visitor.post_by_hand(f"/account/identities/{row.id}/remove")
    assert db.session.query(ExternalIdentity).count() == 0


def test_an_identity_belongs_to_one_account(app: Flask, owner: Visitor, oidc: OidcProvider) -> None:
    other = Visitor(app)
    enter(other, oidc)
    page = enter(owner, oidc, "/account/identities/connect")
    assert owner.status == 403
    assert "connected to an account already" in page.text


def test_without_settings_there_is_no_provider(environment: dict[str, str], request: pytest.FixtureRequest) -> None:
    for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET"):
        del environment[f"ARKA_OIDC_{name}"]
    visitor = Visitor(request.getfixturevalue("app"))
    assert "Sign in with" not in visitor.open("/sign-in").text
    for path in ("/sign-in/elsewhere", BACK):
        visitor.open(path)
        assert visitor.status in (403, 404)
