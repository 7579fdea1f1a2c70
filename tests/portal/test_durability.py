"""A call whose caller saw 200 has its usage row, whatever happens to the portal afterwards."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, text

from config import load
from tests.neighbours.portal import Portal
from tests.neighbours.processes import wait_until
from tests.portal.calls import CHAT, HELLO


def test_no_answered_call_is_missing_after_everything_was_killed(portal: Portal, new_key: Callable[..., str]) -> None:
    portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
    key = new_key("load", "--test")
    answered: list[str] = []
    stop = threading.Event()

    def work(streamed: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=30)
        body = json.dumps({**HELLO, "stream": streamed})
        while not stop.is_set():
            try:
                connection.request("POST", CHAT, body, {"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                return
            if response.status == 200:
                answered.append(response.headers["X-Request-Id"])

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(answered) > 100, 60)
    portal.kill()
    stop.set()
    for thread in threads:
        thread.join(30)
    kept = usage_rows(portal)
    assert [request_id for request_id in answered if request_id not in kept] == []
    assert len(set(answered)) == len(answered)


def usage_rows(portal: Portal) -> set[str]:
    engine = create_engine(load(portal.environment).database_url)
    with engine.connect() as connection:
        found = {row[0] for row in connection.execute(text("SELECT request_id FROM usage_record"))}
    engine.dispose()
    return found


def test_the_portal_stops_within_a_bound_when_asked(portal: Portal) -> None:
    began = time.monotonic()
    assert portal.stop() == 0
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["/v1/models", "/healthz"])
def test_a_stopped_portal_starts_again_on_the_same_data(portal: Portal, new_key: Callable[..., str], path: str) -> None:
    from tests.portal.calls import call

    key = new_key("kept", "--test")
    portal.stop()
    portal.start()
    assert call(portal.port, key, path=path)[0] == 200
