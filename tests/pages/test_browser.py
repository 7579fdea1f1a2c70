"""The pages in a real browser: with and without JavaScript, in both themes, at all widths, by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import update

from extensions import db
from models import User, WebhookAttempt
from models.base import now, transaction
from services import custom_scopes, keys, rotation, webhook_deliveries, webhooks, workspaces
from services.actor import SYSTEM
from services.errors import NotFound
from services.keys import Minted
from tests import mailbox
from tests.calls import Owner, call, keep
from tests.pages.looks import assert_looks_right
from tests.pages.test_frame import connect, note_refusal
from tests.people import PASSWORD, Person, make_person

Mint = Callable[..., Minted]
FULL_KEY = re.compile(r"^arka_[sp]k_(test_)?[0-9A-Za-z]{32}$")


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: what a browser adds does not depend on the database."""
    return one_database_url


@pytest.fixture
def opened(browser: Browser, site: str) -> Iterator[Callable[..., Page]]:
    """Open a browser window of one's own: ``opened(width=390, color_scheme="dark")``. What goes wrong in it is told."""
    contexts: list[BrowserContext] = []
    trouble: list[str] = []

    def note(message: Any) -> None:
        # A refused form answers 422, which the browser mentions; that is no fault of the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            trouble.append(message.text)

    def open_window(width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(base_url=site, viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        window = context.new_page()
        window.on("console", note)
        window.on("pageerror", lambda error: trouble.append(str(error)))
        return window

    yield open_window
    for context in contexts:
        context.close()
    assert trouble == []


def sign_in(window: Page, person: Person) -> None:
    window.goto("/sign-in")
    window.get_by_label("E-mail address").fill(person.email)
    window.get_by_label("Password", exact=True).fill(PASSWORD)
    window.locator("main").get_by_role("button", name="Sign in").click()
    expect(window).to_have_url(re.compile("/overview$"))


def webhook_pages(alice: Person) -> list[str]:
    """Endpoints in their usual states, one with deliveries in theirs; return the pages."""
    url = "https://hooks.northwind.example/a/rather/long/path/" + "x" * 90
    endpoints = [webhooks.create(alice.workspace, actor=alice.actor, url=url).endpoint for _ in range(3)]
    failing, disabled, _ = endpoints
    webhooks.disable(alice.workspace, disabled.id, actor=alice.actor)
    deliveries = [webhook_deliveries.send_test(alice.workspace, failing.id) for _ in range(3)]
    with transaction() as session:
        failing.failing_since, failing.failures, failing.last_answer = now(), 12, "502"
        deliveries[0].delivered_at = deliveries[1].failed_at = now()
        tried: dict[str, Any] = {"delivery_id": deliveries[1].id, "at": now(), "duration_ms": 1234}
        session.add(WebhookAttempt(**tried, status=502, answer="bad gateway " + "x" * 200))
        session.add(WebhookAttempt(**tried, error="The connection was refused."))
    acts = ["", "/edit", "/rotate", "/disable", "/delete", f"/deliveries/{deliveries[1].id}"]
    return ["/webhooks", f"/webhooks/{disabled.id}", *(f"/webhooks/{failing.id}{act}" for act in acts)]


def visits(window: Page, alice: Person, mint: Mint, use: Callable[..., None]) -> Iterator[str]:
    """Lead a window through every page in its usual states; yields the name of each while it is open."""
    used = mint("Production Server", environment="live", expires_at=now() + timedelta(days=2))
    unused = mint("A key with a rather long name that nobody shortened so far", scopes=["chat:write", "keys:read"])
    use(used, times=5, address="2001:db8:85a3:8d3:1319:8a2e:370:7348")
    connect(alice, "openai", "valid")
    connect(alice, "openrouter", "no_credit")
    used_id, unused_id = used.key.id, unused.key.id
    # PostgreSQL ends a transaction in which nothing happens for a minute, and the walk takes longer.
    db.session.rollback()
    for path in (
        "/sign-in",
        "/sign-up",
        "/sign-up/sent",
        "/reset",
        "/reset/sent",
        "/reset/old",
        "/setup/old",
        "/nowhere",
        "/found-a-key",
        "/found-a-key/done",
    ):
        window.goto(path)
        yield path
    window.goto("/sign-up")
    window.get_by_role("button", name="Create account").click()
    expect(window.get_by_role("alert")).to_be_visible()
    yield "sign-up, refused"
    sign_in(window, alice)
    yield "overview"
    note_costs(used)
    paths = ["/keys", "/keys/new", "/keys/providers", "/workspaces", "/keys/nonsense"]
    paths += ["/account/security", "/account/delete", "/account/notices", "/account/password", "/account/email"]
    paths += ["/usage", "/usage?range=24h", "/usage?range=30d", "/usage?model=nothing", "/playground", "/quickstart"]
    paths += [f"/keys/{used_id}", f"/keys/{used_id}/delete", f"/keys/{unused_id}/delete"]
    rotating = mint("Billing sync", environment="live")
    use(rotating, address="2001:db8:85a3:8d3:1319:8a2e:370:7348")
    rotation.rotate(alice.workspace, rotating.key.id, actor=alice.actor, until=now() + timedelta(days=2))
    stopped = mint("Stopped")
    keys.disable(alice.workspace, stopped.key.id, actor=alice.actor)
    custom_scopes.define(alice.workspace, "emails:send", "Send e-mails.", actor=alice.actor)
    refused = note_refusal(used)
    paths += [f"/keys/{used_id}/{act}" for act in ("edit", "rotate", "disable")]
    paths += [f"/keys/{rotating.key.id}/{act}" for act in ("rotate", "rotation")]
    paths += ["/keys?q=nonsense", "/keys/scopes", "/keys/refusals", f"/keys/refusals?request_id={refused}"]
    paths += ["/keys/refusals?request_id=req_unknown", "/audit", "/audit?from=soon", "/audit?who=nobody"]
    paths += ["/team", "/team/invite", "/workspace", "/workspace/leave", "/workspace/delete", "/workspaces/new"]
    paths += ["/account/profile"]
    paths += [f"/keys/providers/{act}" for act in ("new", "openai/update", "openrouter/delete")]
    paths += webhook_pages(alice)
    db.session.rollback()
    for path in paths:
        window.goto(path)
        yield path
    window.goto("/webhooks/new")
    window.get_by_label("Address", exact=True).fill(
        "https://user:password@a-rather-long-name-of-a-host.example/" + "x" * 90
    )
    window.get_by_role("button", name="Add endpoint").click()
    expect(window.get_by_role("alert")).to_be_visible()
    yield "new endpoint, refused"
    window.get_by_label("Address", exact=True).fill("https://hooks.example/")
    window.get_by_role("button", name="Add endpoint").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save the signing secret")
    yield "signing secret, shown once"
    window.goto("/usage")
    for table in window.get_by_text("Show as a table").all():
        table.click()
    yield "usage, tables open"
    window.goto("/playground")
    window.get_by_role("textbox", name="Message").fill("Hello, world! " * 40 + "x" * 300)
    window.get_by_label("Model").fill("a-vendor/a-model")
    window.get_by_role("button", name="Send").click()
    expect(window.get_by_role("alert")).to_be_visible()
    window.get_by_text("Show as code").click()
    yield "playground, refused"
    window.locator(".topbar summary").click()
    yield "account menu"
    window.goto("/keys/new")
    window.get_by_label("Permissions").select_option("one_by_one")
    window.get_by_label("Expires").select_option("on_a_date")
    yield "new key, everything open"
    window.get_by_text("Restrictions (optional)").click()
    window.get_by_label("Allowed networks").fill("10.0.0.0/99")
    window.get_by_role("button", name="Create key").click()
    expect(window.get_by_role("alert")).to_be_visible()
    yield "new key, refused"
    window.goto("/keys/providers/new")
    window.get_by_role("button", name="Save").click()
    expect(window.get_by_role("alert")).to_contain_text("Paste a key first.")
    yield "new provider key, refused"
    window.goto(f"/keys/{unused_id}/rotate")
    window.get_by_label("Until a moment I choose").check()
    yield "rotate, a moment"
    window.get_by_label("7 days").check()
    window.get_by_role("button", name="Rotate and show the new secret").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save the new secret")
    yield "shown once, rotated"
    window.goto("/keys/new")
    window.get_by_label("Name", exact=True).fill("brand new")
    window.get_by_role("button", name="Create key").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your new key")
    yield "shown once"
    window.goto(f"/keys/{unused_id}/delete")
    window.get_by_role("button", name="Delete this key").click()
    expect(window.get_by_role("heading", level=1)).to_have_text(re.compile("is deleted"))
    yield "deleted"
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    window.goto("/keys")
    yield "paused"
    # Words for moments are at their longest: a time zone without a short name, minutes of two digits.
    with transaction() as session:
        session.execute(update(User).where(User.id == alice.user_id).values(time_zone="Asia/Kathmandu"))
    with time_machine.travel(now() + timedelta(minutes=23), tick=True):
        window.reload()
        yield "paused, used 23 minutes ago"
    window.goto("/overview")
    yield "overview, paused"
    window.goto("/playground")
    window.get_by_role("textbox", name="Message").fill("Hello, world!")
    window.get_by_role("button", name="Send").click()
    expect(window.get_by_role("heading", name="Answer")).to_be_visible()
    yield "playground, answered"


def note_costs(minted: Minted) -> None:
    """Note calls whose figures are long, of more providers than a chart tells apart."""
    owner = Owner(minted.key.workspace_id, minted.key.id, minted.key.secrets[0].id)
    tokens = {"input_tokens": 2_000_000_000, "output_tokens": 1_234_567_890}
    keep(
        [
            call(
                owner,
                now(),
                provider=f"provider{number}",
                model=f"a-vendor/a-model-with-a-long-name-{number}",
                **tokens,
            )
            | {"cost_nano_usd": cost}
            for number, cost in enumerate((9 * 10**14, 10**12, 10**9, None))
        ]
    )


# Every page, each in several looks.
@pytest.mark.looks
@pytest.mark.timeout(600)
def test_axe_finds_nothing_and_no_page_scrolls_sideways(
    opened: Callable[..., Page], alice: Person, mint: Mint, use: Callable[..., None]
) -> None:
    window = opened()
    for name in visits(window, alice, mint, use):
        assert_looks_right(window, name)


def test_targets_are_large_enough_to_touch(opened: Callable[..., Page], alice: Person, mint: Mint) -> None:
    mint("Production Server")
    window = opened(390)
    sign_in(window, alice)
    for path in ("/keys", "/keys/new", "/usage", "/playground", "/audit"):
        window.goto(path)
        for element in window.locator(
            "main a:visible, main button:visible, main select:visible, summary:visible"
        ).all():
            box = element.bounding_box()
            assert box is not None
            assert box["height"] >= 24, f"{path}: {element.inner_text()} is {box['height']} px high"
        for element in window.locator("main .btn:visible, main .form-control:visible, summary:visible").all():
            box = element.bounding_box()
            assert box is not None
            assert box["height"] >= 44, f"{path}: {element.inner_text()} is {box['height']} px high"


# ---- the whole way, with and without JavaScript


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_from_sign_up_to_a_deleted_key(opened: Callable[..., Page], script: bool) -> None:
    window = opened(java_script_enabled=script)
    window.goto("/")
    window.get_by_role("link", name="Create an account").click()
    window.get_by_label("E-mail address").fill("erin@new.example")
    window.get_by_role("button", name="Create account").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Open the link we sent")
    window.goto(mailbox.link("erin@new.example", "/confirm/"))
    window.get_by_label("Password", exact=True).fill(PASSWORD)
    window.get_by_role("button", name="Create account").click()
    expect(window.get_by_role("status").filter(has_text="Your account is ready.")).to_be_visible()

    window.get_by_role("link", name="See the plan").click()
    expect(window.get_by_role("heading", name="API keys come with the Agency plan")).to_be_visible()
    expect(window.get_by_role("button", name="Contact sales")).to_be_visible()
    grant_agency("erin")
    window.reload()
    window.get_by_role("link", name="Create New API Key").click()
    window.get_by_label("Name", exact=True).fill("Production Server")
    window.get_by_label("Test", exact=True).check()
    window.get_by_role("button", name="Create key").click()
    secret = window.get_by_label("Secret key", exact=True)
    expect(secret).to_have_value(FULL_KEY)
    expect(window.get_by_role("button", name="Copy key")).to_be_visible(visible=script)

    window.reload()
    expect(window.get_by_role("heading", level=1)).to_have_text("This key was already shown")
    window.get_by_role("link", name="I have saved the key").click()
    window.get_by_role("link", name="Delete Production Server").click()
    window.get_by_role("button", name="Delete this key").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("“Production Server” is deleted")
    if script:
        window.locator(".topbar summary").click()
        window.get_by_role("button", name="Sign out").click()
    else:
        window.locator(".topbar summary").click()
        window.locator(".popmenu button").click()
    expect(window.get_by_text("You are signed out.")).to_be_visible()


def grant_agency(slug: str) -> None:
    workspaces.set_plan(workspaces.get_by_slug(slug), "agency", requests_per_minute=None, actor=SYSTEM)


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_finder_ends_a_key_without_an_account(opened: Callable[..., Page], mint: Mint, script: bool) -> None:
    minted = mint("Production Server", environment="live")
    window = opened(390, java_script_enabled=script)
    window.goto("/sign-in")
    window.get_by_role("link", name="Found a key?").click()
    window.get_by_role("button", name="End this key").click()
    expect(window.get_by_role("alert")).to_contain_text("Paste the key")
    window.get_by_label("The key").fill(minted.secret.reveal())
    window.get_by_label("Where you found it (optional)").fill("On a wall")
    window.get_by_role("button", name="End this key").click()
    expect(window).to_have_url(re.compile("/found-a-key/done$"))
    expect(window.get_by_text("If this was a working key, it no longer works")).to_be_visible()
    with pytest.raises(NotFound):
        keys.get_anywhere(minted.key.id)


def test_without_script_every_section_of_the_form_is_open(opened: Callable[..., Page], alice: Person) -> None:
    window = opened(java_script_enabled=False)
    sign_in(window, alice)
    window.goto("/keys/new")
    for label in ("chat:write", "Date", "Time, UTC"):
        expect(window.get_by_label(label)).to_be_visible()
    expect(window.get_by_text("Used only with “Choose scopes one by one”.")).to_be_visible()
    expect(window.locator("[data-summary]")).to_be_hidden()
    expect(window.get_by_role("button", name="Show password")).to_be_hidden()


def test_without_script_the_small_menu_opens(opened: Callable[..., Page], alice: Person) -> None:
    window = opened(390, java_script_enabled=False)
    sign_in(window, alice)
    expect(window.locator("nav.side")).to_be_hidden()
    window.get_by_text("Overview", exact=True).first.click()
    window.locator(".mobnav").get_by_role("link", name="API Keys").click()
    expect(window).to_have_url(re.compile("/keys$"))
    expect(window.locator(".mobnav summary")).to_have_text(re.compile("Settings: API Keys"))


# ---- what the script adds


def test_the_form_keeps_type_and_permissions_in_agreement(
    opened: Callable[..., Page], alice: Person, site: str
) -> None:
    window = opened()
    sign_in(window, alice)
    window.goto("/keys/new")
    summary = window.locator("[data-summary]")
    day = now() + timedelta(days=90)
    expect(summary).to_have_text(f"Secret live key, 3 scopes, expires {day.day} {day:%b %Y}.")
    expect(window.get_by_label("chat:write")).to_be_hidden()
    expect(window.get_by_label("Date")).to_be_hidden()

    window.get_by_label("Publishable").check()
    window.get_by_label("Expires").select_option("never")
    expect(summary).to_have_text("Publishable live key, 2 scopes, never expires.")
    assert window.locator("#preset option").all_inner_texts() == ["Read-only", "Choose scopes one by one"]
    window.get_by_label("Permissions").select_option("one_by_one")
    expect(window.get_by_label("models:read")).to_be_visible()
    expect(window.get_by_label("chat:write")).to_be_hidden()
    expect(window.get_by_label("billing:read")).to_be_hidden()
    window.get_by_label("models:read").check()
    expect(summary).to_have_text("Publishable live key, 1 scope, never expires.")

    window.get_by_label("Secret", exact=True).check()
    expect(window.get_by_label("chat:write")).to_be_visible()
    window.get_by_label("Name", exact=True).fill("from the form")
    window.get_by_role("button", name="Create key").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your new key")
    assert [key.scopes for key in keys.living(alice.workspace)] == [["models:read"]]


def reveal(window: Page, alice: Person) -> str:
    """Make a key and stay on the page that shows it."""
    sign_in(window, alice)
    window.goto("/keys/new")
    window.get_by_label("Name", exact=True).fill("Production Server")
    window.get_by_role("button", name="Create key").click()
    return window.get_by_label("Secret key", exact=True).input_value()


def test_copy_puts_the_key_on_the_clipboard(opened: Callable[..., Page], alice: Person) -> None:
    window = opened(permissions=["clipboard-read", "clipboard-write"])
    secret = reveal(window, alice)
    window.get_by_role("button", name="Copy key").click()
    expect(window.get_by_role("button", name="Copied")).to_be_visible()
    expect(window.locator("#live")).to_have_text("Copied")
    assert window.evaluate("navigator.clipboard.readText()") == secret


@pytest.mark.parametrize("works", [True, False])
def test_copy_without_the_clipboard_api(opened: Callable[..., Page], alice: Person, works: bool) -> None:
    window = opened()
    window.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    window.add_init_script(f"document.execCommand = () => {str(works).lower()}")
    secret = reveal(window, alice)
    window.get_by_role("button", name="Copy key").click()
    failure = "Could not copy. The key is selected; press Ctrl C, or ⌘ C on a Mac."
    expect(window.locator("[data-copy-failed]")).to_be_visible(visible=not works)
    if works:
        expect(window.get_by_role("button", name="Copied")).to_be_visible()
    else:
        expect(window.locator("[data-copy-failed]")).to_have_text(re.compile(re.escape(failure)))
        assert window.evaluate("document.activeElement.id") == "secret"
        assert window.evaluate("getSelection().toString()") == secret


def test_a_password_can_be_looked_at_and_is_hidden_when_sent(opened: Callable[..., Page]) -> None:
    window = opened()
    window.goto("/sign-in")
    password = window.get_by_label("Password", exact=True)
    password.fill("what was typed")
    button = window.get_by_role("button", name="Show password")
    button.click()
    expect(password).to_have_attribute("type", "text")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(password).to_have_attribute("type", "password")
    button.click()
    window.locator("main").get_by_role("button", name="Sign in").click()
    expect(window.get_by_role("alert")).to_be_visible()
    expect(window.get_by_label("Password", exact=True)).to_have_value("")


def test_a_failed_form_opens_on_its_problems_and_leads_to_the_fields(
    opened: Callable[..., Page], alice: Person
) -> None:
    window = opened()
    sign_in(window, alice)
    window.goto("/keys/new")
    window.get_by_label("Permissions").select_option("one_by_one")
    window.get_by_role("button", name="Create key").click()
    expect(window.get_by_role("alert")).to_be_focused()
    window.get_by_role("alert").get_by_role("link", name="Enter a name for the key").click()
    expect(window.get_by_label("Name", exact=True)).to_be_focused()
    window.get_by_role("alert").get_by_role("link", name="Choose at least one scope").click()
    expect(window.locator("#scopes")).to_be_focused()


def test_a_double_click_makes_one_key(opened: Callable[..., Page], alice: Person) -> None:
    window = opened()
    sign_in(window, alice)
    window.goto("/keys/new")
    window.get_by_label("Name", exact=True).fill("Production Server")
    window.get_by_role("button", name="Create key").dblclick()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your new key")
    assert len(keys.living(alice.workspace)) == 1


def test_menus_close_on_escape(opened: Callable[..., Page], alice: Person) -> None:
    window = opened()
    sign_in(window, alice)
    summary = window.locator(".topbar summary")
    summary.click()
    expect(window.get_by_role("button", name="Sign out")).to_be_visible()
    window.keyboard.press("Escape")
    expect(window.get_by_role("button", name="Sign out")).to_be_hidden()
    expect(summary).to_be_focused()


# ---- by keyboard


def tab_stops(window: Page) -> list[str]:
    """What Tab stops at, from the top of the page until it leaves it."""
    stops = []
    for _ in range(60):
        window.keyboard.press("Tab")
        stop = window.evaluate("""() => {
            const e = document.activeElement;
            if (!e || e === document.body) return null;
            const label = e.labels && e.labels[0];
            return (label || e).innerText.trim().replace(/\\s+/g, " ") || e.getAttribute("aria-label") || e.id;
        }""")
        if stop is None:
            return stops
        stops.append(stop)
    return stops


def test_tab_goes_in_reading_order(
    opened: Callable[..., Page], alice: Person, mint: Mint, use: Callable[..., None]
) -> None:
    minted = mint("Production Server")
    use(minted)
    window = opened()
    sign_in(window, alice)
    frame = ["Skip to content", "ARKA", "Workspace: alice", "alice@northwind.example"]
    frame += ["Overview", "Playground", "Usage & limits"]
    frame += ["API Keys", "Webhooks", "Team & roles", "Audit log", "Plan", "Workspace"]

    window.goto("/keys")
    tabs = ["ARKA API keys", "Provider keys", "Custom scopes"]
    filters = ["Name or last characters", "Status", "Filter"]
    row = ["Production Server", "Rotate Production Server", "Delete Production Server"]
    main = ["Create New API Key", *tabs, *filters, *row]
    main += ["Deleted keys in the audit log", "Enter a request id", "Add key"]
    assert tab_stops(window) == [*frame, *main, "Change the time zone", "Contact"]

    window.goto("/keys/new")
    main = ["API Keys", "Name", "Secret", "Live", "Permissions", "Expires"]
    main += ["Restrictions (optional)", "Create key", "Cancel"]
    assert tab_stops(window) == [*frame, *main, "Change the time zone", "Contact"]

    window.get_by_label("Name", exact=True).fill("another")
    window.get_by_role("button", name="Create key").click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Save your new key")
    main = ["API Keys", "Secret key", "Copy key", "I have saved the key", "Example request"]
    assert [stop if "curl" not in stop else "Example request" for stop in tab_stops(window)] == [
        *frame,
        *main,
        "Change the time zone",
        "Contact",
    ]

    window.goto(f"/keys/{minted.key.id}/delete")
    main = ["API Keys", "Production Server", "rotate it", "disable it"]
    main += ["Type the key’s name to confirm", "Delete this key", "Keep the key"]
    assert tab_stops(window) == [*frame, *main, "Change the time zone", "Contact"]


def test_the_skip_link_leads_past_the_frame(opened: Callable[..., Page], alice: Person, mint: Mint) -> None:
    mint("Production Server")
    window = opened()
    sign_in(window, alice)
    window.goto("/keys")
    window.keyboard.press("Tab")
    window.keyboard.press("Enter")
    window.keyboard.press("Tab")
    expect(window.get_by_role("link", name="Create New API Key")).to_be_focused()


def test_another_persons_window_is_untouched(opened: Callable[..., Page], alice: Person) -> None:
    erin = make_person("erin@solo.example")
    first, second = opened(), opened()
    sign_in(first, alice)
    sign_in(second, erin)
    first.goto("/overview")
    expect(first.locator(".topbar summary")).to_have_text(re.compile(alice.email))
