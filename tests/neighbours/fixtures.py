"""The neighbours as fixtures: started when first asked for, once in each test process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.neighbours import browser as chromium
from tests.neighbours import postgres as postgresql
from tests.neighbours import valkey as valkeys
from tests.neighbours.fake_provider import FakeProvider, running_provider
from tests.neighbours.postgres import Postgres, running_postgres
from tests.neighbours.smtp_sink import SmtpSink, running_sink
from tests.neighbours.valkey import Valkey, running_valkey
from tests.neighbours.webhook_receiver import WebhookReceiver, running_receiver

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route

PAGE_TIMEOUT_MS = 10_000


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey server. A test that needs it empty calls ``valkey.empty()`` or takes ``empty_redis_url``."""
    if valkeys.find_valkey() is None:
        pytest.skip(valkeys.HOW_TO_GET)
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(valkey: Valkey) -> str:
    return valkey.url


@pytest.fixture
def empty_redis_url(valkey: Valkey) -> str:
    """The address of the Valkey server, which runs and holds nothing when the test begins."""
    valkey.start()
    valkey.empty()
    return valkey.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server in which tests make their own databases."""
    if postgresql.find_postgres() is None:
        pytest.skip(postgresql.HOW_TO_GET)
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a PostgreSQL database: with the portal's tables for a test of the portal, else empty."""
    # Asked for first: it starts the server as well.
    has_tables = {"app", "portal"} & set(request.fixturenames)
    tables = request.getfixturevalue("postgres_tables") if has_tables else None
    postgres.start()
    name = postgres.create_database(tables)
    yield postgres.url_of(name)
    postgres.start()
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def _provider_server() -> Iterator[FakeProvider]:
    with running_provider() as server:
        yield server


@pytest.fixture
def provider(_provider_server: FakeProvider) -> Iterator[FakeProvider]:
    """The fake provider, running, with no requests, faults or delays from an earlier test."""
    _provider_server.start()
    _provider_server.reset()
    yield _provider_server
    errors = _provider_server.errors
    _provider_server.reset()
    assert not errors, f"the fake provider could not handle a request: {errors!r}"


@pytest.fixture
def smtp_sink() -> Iterator[SmtpSink]:
    """A mail server that listens and has no mail yet."""
    with running_sink() as sink:
        yield sink


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A server that takes webhooks over plain http, and has none yet."""
    with running_receiver() as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, driven by Playwright.

    Once it runs, Playwright's event loop counts as running in this thread, so a later test that needs
    ``asyncio.run`` has to call it in a thread of its own.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: see requirements/test.txt")
    if chromium.find_chromium() is None:
        pytest.skip(chromium.HOW_TO_GET)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(**chromium.launch_options())
        yield browser
        browser.close()


@pytest.fixture
def page_faults() -> list[str]:
    """What went wrong on the pages of this test; a test that wants a fault clears the list."""
    return []


@pytest.fixture
def page(browser: Browser, page_faults: list[str]) -> Iterator[Page]:
    """A page in a fresh context, without cookies. Only this machine can be reached.

    The test fails for an error that no script caught, a breach of the content security policy, or a request to
    another machine.
    """
    context = browser.new_context(service_workers="block")
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    _watch(context, page_faults)
    yield context.new_page()
    context.close()
    assert not page_faults, "faults on the page: " + "; ".join(page_faults)


def _watch(context: BrowserContext, faults: list[str]) -> None:
    def on_message(message: ConsoleMessage) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            faults.append(message.text)

    def on_route(route: Route) -> None:
        if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            faults.append(f"request to {route.request.url}")
            route.abort()

    context.on("console", on_message)
    context.on("weberror", lambda error: faults.append(f"script error: {error.error.message}"))
    context.route("**/*", on_route)
