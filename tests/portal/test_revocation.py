"""An ended key is refused by every worker process from the next request on."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.neighbours.portal import Portal, running_portal
from tests.portal.calls import PASSWORD, call


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


@pytest.fixture
def busy_portal(storage: dict[str, str]) -> Iterator[Portal]:
    with running_portal({**storage, "ARKA_DEMO": "0"}, workers=4) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
        yield portal


def end(portal: Portal, admin: str, key_id: str, act: str) -> None:
    """End a key, and return when the answer has arrived; an expiry a moment later has then passed as well."""
    path = f"/v1/keys/{key_id}"
    if act == "delete":
        status = call(portal.port, admin, "DELETE", path)[0]
    elif act == "rotate":
        status = call(portal.port, admin, "POST", f"{path}/rotate", {"overlap": "now"})[0]
    elif act == "expire":
        status = expire(portal.port, admin, path)
    else:
        status = call(portal.port, admin, "POST", f"{path}/disable", {})[0]
    assert status == 200, (act, status)


def expire(port: int, admin: str, path: str) -> int:
    """Let the key expire in a moment, wait for it, and return the status of the change."""
    status = 0
    # On a busy machine the first moment may be over before it has arrived.
    for seconds in (0.5, 3, 10):
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        status = call(port, admin, "PATCH", path, {"expires_at": moment.isoformat()})[0]
        if status == 200:
            time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 0.001)
            break
    return status


def test_in_200_repetitions_under_load_no_ended_key_is_accepted(busy_portal: Portal) -> None:
    port = busy_portal.port
    made = busy_portal.command("key", "create", "--workspace", "alice", "--name", "admin", "--test")
    admin = made.stdout.strip()
    stop = threading.Event()
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(8)]

    def load() -> None:
        while not stop.is_set():
            call(port, admin)

    def statuses(key: str) -> set[int]:
        found = set()
        for connection in connections:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            found.add(response.status)
        return found

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            body = {"name": f"short-lived {number}", "kind": "secret", "environment": "test", "scopes": ["models:read"]}
            status, _, key = call(port, admin, "POST", "/v1/keys", body)
            assert status == 201, key
            assert statuses(key["key"]) == {200}
            end(busy_portal, admin, key["id"], ("delete", "disable", "rotate", "expire")[number % 4])
            assert statuses(key["key"]) == {403}, number
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
