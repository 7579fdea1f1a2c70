"""The life of an account in a real browser, at a real portal, with the mail that it writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.factors import code_of
from tests.neighbours.portal import Portal, running_portal
from tests.portal.calls import CHAT, HELLO, PASSWORD, call

OPERATOR, MIRA, JONAS = "ops@portal.example", "mira@northwind.example", "jonas@northwind.example"
Open = Callable[[], Page]


@pytest.fixture
def portal() -> Iterator[Portal]:
    """A portal as it is on the first day: embedded, mail in files, no operator yet."""
    with running_portal({"ARKA_DEMO": "0"}, workers=2) as portal:
        yield portal


@pytest.fixture
def window(browser: Browser, portal: Portal) -> Iterator[Open]:
    """Open a browser of somebody's own."""
    contexts: list[BrowserContext] = []

    def open_window() -> Page:
        context = browser.new_context(base_url=portal.url, viewport={"width": 1280, "height": 800})
        context.set_default_timeout(15_000)
        contexts.append(context)
        return context.new_page()

    yield open_window
    for context in contexts:
        context.close()


def mailed(portal: Portal, recipient: str, path: str) -> str:
    """Wait for a message to somebody with a link to a page, and return the link."""
    return portal.url + portal.mailed_link(recipient, path)


def press(page: Page, name: str) -> None:
    page.locator("main").get_by_role("button", name=name, exact=True).click()


def headed(page: Page, words: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(words)


def sign_in(page: Page, email: str) -> None:
    page.goto("/sign-in")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    press(page, "Sign in")


def become_operator(page: Page, portal: Portal) -> None:
    link = re.search(r"http://\S+/setup/\S+", portal.output())
    assert link is not None
    page.goto(link[0])
    page.get_by_label("E-mail address").fill(OPERATOR)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    press(page, "Create the operator")
    expect(page).to_have_url(re.compile("/overview$"))


def sign_up(page: Page, portal: Portal) -> None:
    page.goto("/sign-up")
    page.get_by_label("E-mail address").fill(MIRA)
    press(page, "Create account")
    page.goto(mailed(portal, MIRA, "/confirm/"))
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    press(page, "Create account")
    expect(page).to_have_url(re.compile("/overview$"))


def set_up_second_factor(page: Page) -> str:
    """Set up an app, sign out, sign in with it; return the app's secret."""
    page.goto("/account/security")
    press(page, "Set up an app")
    secret = page.get_by_role("textbox", name="Secret").input_value().replace(" ", "")
    page.get_by_label(re.compile("^Code")).fill(code_of(secret))
    press(page, "Switch it on")
    headed(page, "Save your recovery codes")
    recovery_code = page.get_by_label("Recovery codes").input_value().splitlines()[0]
    page.locator(".topbar summary").click()
    page.locator(".topbar").get_by_role("button", name="Sign out").click()
    sign_in(page, MIRA)
    headed(page, "One more step")
    # The code of now was used to switch it on.
    page.get_by_label("Code from your app, or a recovery code").fill(recovery_code)
    press(page, "Continue")
    expect(page).to_have_url(re.compile("/overview$"))
    return secret


def ask_for_plan(page: Page) -> None:
    page.goto("/keys")
    page.get_by_label("What will you use the API for?").fill("A bot that answers.")
    press(page, "Contact sales")
    expect(page.get_by_role("heading", name="We have your request")).to_be_visible()


def grant_plan(page: Page) -> None:
    page.goto("/operator/requests")
    page.locator("main").get_by_role("link", name="mira").click()
    press(page, "Grant Agency")
    expect(page.get_by_role("status").filter(has_text="mira is on Agency.")).to_be_visible()


def make_key(page: Page) -> str:
    page.goto("/keys/new")
    page.get_by_label("Name", exact=True).fill("Production Server")
    page.get_by_label("Test", exact=True).check()
    press(page, "Create key")
    headed(page, "Save your new key")
    return page.locator("#secret").input_value()


def invite_and_join(owner: Page, guest: Page, portal: Portal) -> None:
    owner.goto("/team/invite")
    owner.get_by_label("E-mail address").fill(JONAS)
    owner.get_by_label("Developer", exact=True).check()
    press(owner, "Send invitation")
    guest.goto(mailed(portal, JONAS, "/invitations/"))
    headed(guest, "Join mira")
    guest.get_by_role("link", name="Create an account").click()
    guest.get_by_label("Password", exact=True).fill(PASSWORD)
    press(guest, "Create account and join")
    guest.goto("/keys")
    expect(guest.locator("main")).to_contain_text("Production Server")
    expect(guest.locator("main")).to_contain_text("Managed by mira")


def remove_member(owner: Page, guest: Page) -> None:
    owner.goto("/team")
    owner.locator("main").get_by_role("link", name=re.compile("^Remove")).click()
    press(owner, "Remove this member")
    guest.goto("/keys")
    headed(guest, "Workspaces")
    expect(guest.locator("main")).not_to_contain_text("mira")


def test_from_sign_up_to_a_member_who_was_removed(portal: Portal, window: Open) -> None:
    operator, mira, jonas = window(), window(), window()
    become_operator(operator, portal)
    sign_up(mira, portal)
    set_up_second_factor(mira)
    ask_for_plan(mira)
    assert mailed(portal, "sales@arka-ai.com", "/operator/requests/")
    grant_plan(operator)
    key = make_key(mira)
    status, headers, answer = call(portal.port, key, "POST", CHAT, HELLO)
    assert (status, answer["object"]) == (200, "chat.completion")
    invite_and_join(mira, jonas, portal)
    remove_member(mira, jonas)
    mira.goto("/audit")
    for words in (
        "switched a second factor on",
        "created the key",
        "invited",
        "added the member",
        "removed the member",
    ):
        expect(mira.locator("main")).to_contain_text(words)
    assert portal.command("audit", "verify").returncode == 0
    # The call is found by its number where the portal says so.
    mira.goto("/usage")
    expect(mira.locator("main")).to_contain_text("Production Server")
    assert headers["X-Request-Id"].startswith("req_")
