"""The disk under the instance folder is full: nothing is answered that is not kept, until there is room again."""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.neighbours.fake_provider import OPENAI_KEY, FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.neighbours.small_disk import SmallDisk, small_disk
from tests.pages.html import Html
from tests.portal.calls import CHAT, HELLO, PASSWORD
from tests.portal.database import run
from tests.portal.test_first_start import workers_of
from tests.portal.test_stopping import Background, slow

ALICE = "alice@northwind.example"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "instance", kilobytes=24_000) as disk:
        yield disk


@pytest.fixture
def portal(disk: SmallDisk, provider: FakeProvider) -> Iterator[Portal]:
    settings = {
        "ARKA_DEMO": "0",
        "ARKA_INSTANCE_PATH": str(disk.folder),
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
    }
    with running_portal(settings, workers=2) as portal:
        yield portal


@dataclass(frozen=True)
class Answer:
    """What came of a call."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def request_id(self) -> str:
        return self.headers["X-Request-Id"]

    @property
    def is_whole(self) -> bool:
        """Whether it is an answer to the very end."""
        streamed = self.headers["Content-Type"].startswith("text/event-stream")
        return self.status == 200 and (not streamed or self.content.endswith(b"data: [DONE]\n\n"))


class Caller:
    """Calls with one key, and notes the ids of all that were answered to the end."""

    def __init__(self, portal: Portal, key: str) -> None:
        self._port, self._key = portal.port, key
        self.answered: list[str] = []

    def call(self, body: dict[str, object]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request("POST", CHAT, json.dumps(body), {"Authorization": f"Bearer {self._key}"})
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        if answer.is_whole:
            self.answered.append(answer.request_id)
        return answer

    def is_served(self, body: dict[str, object]) -> bool:
        """Tell whether a call is answered; else it got 503 with Retry-After, or its stream ended with such an error."""
        answer = self.call(body)
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) >= 1
        else:
            assert answer.is_whole or b'"code":"service_unavailable"' in answer.content
        return answer.is_whole


class Reader:
    """Somebody signed in, at a browser."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        page = Html(self.open("/sign-in")[1])
        fields = {**dict(page.main_form.fields), "email": ALICE, "password": PASSWORD}
        sent = urllib.parse.urlencode(fields).encode()
        with self._opener.open(portal.url + page.main_form.action, sent, timeout=30) as answer:
            assert ALICE in answer.read().decode()

    def open(self, path: str) -> tuple[int, str]:
        with self._opener.open(self._portal.url + path, timeout=30) as answer:
            return answer.status, answer.read().decode()


@pytest.mark.embedded
@pytest.mark.waits
@pytest.mark.timeout(180)
def test_on_a_full_disk_calls_get_503_pages_are_read_and_all_goes_on_when_there_is_room(
    portal: Portal, disk: SmallDisk
) -> None:
    portal.command("user", "create", ALICE, input=PASSWORD + "\n")
    portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
    portal.command("provider", "set", "--workspace", "alice", "openai", input=OPENAI_KEY)
    key = portal.command("key", "create", "--workspace", "alice", "--name", "disk").stdout.strip()
    caller, reader, workers = Caller(portal, key), Reader(portal), workers_of(portal)
    kinds: list[dict[str, object]] = [{**HELLO, "stream": False}, {**HELLO, "stream": True}]
    assert all(caller.is_served(body) for body in kinds * 10)

    # This stream is under way when there is no room any more, and ends before there is.
    overtaken = Background(lambda: caller.call(slow(1, streamed=True)))
    assert wait_until(lambda: len(usage(portal, "ended_at IS NULL")) == 1, 20)
    disk.fill()
    for body in kinds:
        # Until then, there is room in a file that has grown before.
        assert wait_until(lambda body=body: caller.call(body).status == 503, 60)
    assert not any(caller.is_served(body) for body in kinds * 5)
    assert b'"code":"service_unavailable"' in overtaken.wait().content[-300:]
    assert_pages_are_read(reader)
    assert workers_of(portal) == workers

    # One that is started meanwhile does the same.
    portal.kill()
    portal.start()
    # A start throws away what the last one counted of itself.
    disk.fill()
    assert_pages_are_read(reader)
    assert not any(caller.is_served(body) for body in kinds * 5)
    workers = workers_of(portal)

    disk.free()
    for body in kinds:
        assert wait_until(lambda body=body: caller.is_served(body), 30)
    assert all(caller.is_served(body) for body in kinds * 10)
    assert workers_of(portal) == workers
    # Of each answer there is a row, and each row tells of an answer or of a stream that was cut.
    assert wait_until(lambda: usage(portal, "ended_at IS NULL") == [], 30)
    assert usage(portal, "status = 200 AND code IS NULL") == sorted(caller.answered)
    assert overtaken.result.request_id in usage(portal, "1 = 1")


def assert_pages_are_read(reader: Reader) -> None:
    for path in ("/sign-in", "/keys", "/usage", "/keys/providers", "/workspace", "/healthz"):
        assert reader.open(path)[0] == 200
    assert "arka_sk_" in reader.open("/keys")[1]


def usage(portal: Portal, condition: str) -> list[str]:
    """Return the ids of the calls that usage tells of."""
    return sorted(row[0] for row in run(portal, f"SELECT request_id FROM usage_record WHERE {condition}"))
