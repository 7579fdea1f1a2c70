"""A page of another origin, in a real browser: it reads what a publishable key is answered, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from services import keys
from services.restrictions import Restrictions
from tests.people import Person

if TYPE_CHECKING:
    from playwright.sync_api import Page

FETCH = """async ([url, key, header]) => {
    const headers = header === "X-API-Key" ? {"X-API-Key": key} : {Authorization: "Bearer " + key};
    try {
        const answer = await fetch(url, {headers});
        return [answer.status, (await answer.json()).object ?? null, answer.headers.get("X-RateLimit-Limit")];
    } catch (error) {
        return error.name;
    }
}"""


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    """The origin of a page that has nothing to do with the portal."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_page_reads_with_a_publishable_key_of_its_origin_only(
    site: str, shop: str, page: Page, alice: Person, mint: Callable[..., keys.Minted], header: str
) -> None:
    def publishable(name: str, *origins: str) -> str:
        made = keys.mint(
            alice.workspace,
            actor=alice.actor,
            name=name,
            kind="publishable",
            environment="test",
            restrictions=Restrictions(origins=origins),
        )
        return made.secret.reveal()

    everywhere, here, elsewhere = publishable("a"), publishable("b", shop), publishable("c", "https://other.example")
    page.goto(shop)

    def read(key: str, path: str = "/v1/models") -> Any:
        return page.evaluate(FETCH, [site + path, key, header])

    assert read(everywhere) == read(here) == [200, "list", "1000"]
    # A refusal can be read as well, so that the page can say what is wrong.
    assert read(here, "/v1/keys")[0] == 403
    assert read(elsewhere) == "TypeError"
    assert read(mint().secret.reveal()) == "TypeError"
    assert read("arka_sk_nothing") == "TypeError"
