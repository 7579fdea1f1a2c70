"""An ended key is refused by every worker process from the next request on."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable

from tests.neighbours.portal import Portal
from tests.portal.calls import call


def test_a_deleted_key_is_refused_on_every_kept_connection(portal: Portal, new_key: Callable[..., str]) -> None:
    """Sixteen kept connections are spread over both workers; each is asked before and after."""
    key = new_key("server", "--test")
    connections = [http.client.HTTPConnection("127.0.0.1", portal.port, timeout=30) for _ in range(16)]

    def statuses() -> set[int]:
        found = set()
        for connection in connections:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            found.add(response.status)
        return found

    assert statuses() == {200}
    key_id = portal.command("key", "list").stdout.split("\t")[0]
    assert portal.command("key", "revoke", key_id).returncode == 0
    assert statuses() == {403}


def test_under_load_no_request_that_starts_after_the_end_is_let_in(portal: Portal, new_key: Callable[..., str]) -> None:
    portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
    busy = new_key("busy", "--test")
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            call(portal.port, busy)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            key = new_key(f"short-lived {number}", "--test")
            assert call(portal.port, key)[0] == 200
            portal.command("workspace", "set-plan", "alice", "starter")
            assert {call(portal.port, key)[0] for _ in range(8)} == {403}
            portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
            assert {call(portal.port, key)[0] for _ in range(8)} == {200}
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
