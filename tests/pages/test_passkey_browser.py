"""Passkeys in a real browser, with Chromium's virtual authenticator; and how the pages of the second factor look."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask
from playwright.sync_api import Browser, CDPSession, Page, expect
from werkzeug.serving import make_server

from extensions import db
from models import LoginSession, Passkey
from models.base import now
from tests.factors import add_app, code_of
from tests.pages.looks import assert_looks_right
from tests.people import PASSWORD, Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: what a browser adds does not depend on the database."""
    return one_database_url


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def environment(environment: dict[str, str], port: int) -> dict[str, str]:
    return environment | {"ARKA_PUBLIC_URL": f"http://localhost:{port}"}


@pytest.fixture
def home(app: Flask, port: int) -> Iterator[str]:
    """The app under its public address, where browsers allow passkeys."""
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def window(browser: Browser, home: str) -> Iterator[Page]:
    """A browser with an authenticator that says yes; scripts that fail and breaches of the policy fail the test."""
    context = browser.new_context(base_url=home, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda said: trouble.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert trouble == []


def add_authenticator(window: Page) -> tuple[CDPSession, str]:
    protocol = window.context.new_cdp_session(window)
    protocol.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made: dict[str, Any] = protocol.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return protocol, str(made["authenticatorId"])


def sign_in(window: Page, person: Person) -> None:
    window.goto("/sign-in")
    window.get_by_label("E-mail address").fill(person.email)
    window.get_by_label("Password", exact=True).fill(PASSWORD)
    window.locator("main").get_by_role("button", name="Sign in", exact=True).click()


def sign_out(window: Page) -> None:
    window.locator(".topbar summary").click()
    window.get_by_role("button", name="Sign out").click()
    expect(window).to_have_url(re.compile("/sign-in$"))


def make_passkey(window: Page) -> None:
    window.goto("/account/security")
    window.get_by_role("link", name="Add a passkey").click()
    window.get_by_label("Name").fill("This machine")
    window.get_by_role("button", name="Make the passkey").click()


def test_a_passkey_is_made_and_then_signs_in_alone_and_as_second_step(window: Page, alice: Person) -> None:
    protocol, authenticator = add_authenticator(window)
    sign_in(window, alice)
    make_passkey(window)
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your recovery codes")
    with window.expect_download() as download:
        window.get_by_role("link", name="Download as text").click()
    kept = Path(download.value.path()).read_text()
    assert len(re.findall(r"^[0-9a-z]{4}(?:-[0-9a-z]{4}){3}$", kept, re.MULTILINE)) == 10
    window.get_by_role("link", name="I have saved the codes").click()
    expect(window.locator(".rows b", has_text="This machine")).to_be_visible()
    sign_out(window)

    window.get_by_label("Stay signed in").check()
    window.get_by_role("button", name="Sign in with a passkey").click()
    expect(window).to_have_url(re.compile("/overview$"))
    db.session.rollback()
    session = db.session.query(LoginSession).one()
    assert (session.methods, session.remembered) == (["passkey"], True)
    sign_out(window)

    window.goto("/keys")
    sign_in_at(window, alice)
    expect(window).to_have_url(re.compile("/sign-in/code"))
    window.get_by_role("button", name="Use a passkey").click()
    expect(window).to_have_url(re.compile(r"^http://[^/]*/keys$"))
    db.session.rollback()
    assert db.session.query(LoginSession).one().methods == ["password", "passkey"]
    sign_out(window)

    protocol.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": False})
    window.get_by_role("button", name="Sign in with a passkey").click()
    expect(window.locator("[data-trouble]")).to_be_visible()
    assert db.session.query(Passkey).count() == 1


def sign_in_at(window: Page, person: Person) -> None:
    """Fill in the sign-in page that one was led to."""
    window.get_by_label("E-mail address").fill(person.email)
    window.get_by_label("Password", exact=True).fill(PASSWORD)
    window.locator("main").get_by_role("button", name="Sign in", exact=True).click()


def test_a_passkey_proves_who_is_there_and_the_typed_form_goes_on(window: Page, alice: Person) -> None:
    add_authenticator(window)
    sign_in(window, alice)
    make_passkey(window)
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your recovery codes")
    window.goto("/keys/new")
    window.get_by_label("Name", exact=True).fill("Typed before")
    with time_machine.travel(now() + timedelta(minutes=16), tick=True):
        window.get_by_role("button", name="Create key").click()
        expect(window.get_by_role("heading", level=1)).to_have_text("Is it you?")
        window.get_by_role("button", name="Use a passkey").click()
        expect(window.get_by_role("heading", level=1)).to_have_text("Save your new key")
    expect(window.get_by_text("“Typed before” is ready")).to_be_visible()


def test_under_another_address_of_the_portal_no_passkey_is_offered(window: Page, home: str, alice: Person) -> None:
    window.goto(home.replace("localhost", "127.0.0.1") + "/sign-in")
    expect(window.get_by_text("Passkeys work where this portal is at home")).to_be_visible()
    expect(window.get_by_role("button", name="Sign in with a passkey")).to_be_hidden()


def visits(window: Page, person: Person, secret: str) -> Iterator[str]:
    """Lead a window through the pages of the second factor; yields the name of each while it is open."""
    window.goto("/sign-in")
    yield "sign in"
    sign_in(window, person)
    expect(window).to_have_url(re.compile("/sign-in/code"))
    yield "second step"
    window.get_by_role("button", name="Continue").click()
    expect(window.get_by_role("alert").first).to_be_visible()
    yield "second step, refused"
    window.get_by_label("Code from your app").fill(code_of(secret))
    window.get_by_role("button", name="Continue").click()
    expect(window).to_have_url(re.compile("/overview$"))
    paths = ("security", "app/remove", "recovery-codes", "passkeys/new")
    for path in paths:
        window.goto(f"/account/{path}")
        yield path
    make_passkey(window)
    expect(window.locator(".rows b", has_text="This machine")).to_be_visible()
    yield "security, with a passkey"
    for act in ("Rename", "Delete"):
        window.goto("/account/security")
        window.get_by_role("link", name=f"{act} This machine").click()
        yield act
    window.goto("/account/app/remove")
    window.get_by_role("button", name="Remove the app").click()
    expect(window).to_have_url(re.compile("/account/security$"))
    window.get_by_role("button", name="Set up an app").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Set up an authenticator app")
    yield "set up"
    window.goto("/account/recovery-codes")
    window.get_by_role("button", name="Make and show new codes").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your recovery codes")
    yield "codes"
    with time_machine.travel(now() + timedelta(minutes=16), tick=True):
        window.goto("/keys/new")
        expect(window.get_by_role("heading", level=1)).to_have_text("Is it you?")
        yield "proof"


@pytest.mark.looks
def test_axe_finds_nothing_and_no_page_scrolls_sideways(window: Page, alice: Person) -> None:
    secret, _ = add_app(alice)
    add_authenticator(window)
    for name in visits(window, alice, secret):
        assert_looks_right(window, name)
