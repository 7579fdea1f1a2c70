"""An ended key is refused by every worker process from the next request on."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

import config
from app import create_app
from extensions import db
from services import workspaces
from services.actor import Actor
from services.gate import LATE_SECONDS
from services.parts import parts
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.portal.calls import CHAT, HELLO, PASSWORD, call


def test_a_deleted_key_is_refused_on_every_kept_connection(portal: Portal, new_key: Callable[..., str]) -> None:
    """Sixteen kept connections are spread over both workers; each is asked before and after."""
    key = new_key("server", "--test")
    connections = Connections(portal.port, 16)
    assert connections.statuses(key) == {200}
    key_id = portal.command("key", "list").stdout.split("\t")[0]
    assert portal.command("key", "revoke", key_id).returncode == 0
    assert connections.statuses(key) == {403}
    connections.close()


class HalfSent:
    """A chat request of which the last bytes are held back."""

    def __init__(self, port: int, key: str) -> None:
        body = json.dumps(HELLO)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.putrequest("POST", CHAT)
        for name, value in (("Authorization", f"Bearer {key}"), ("Content-Length", str(len(body)))):
            self._connection.putheader(name, value)
        self._connection.endheaders(body[:-10].encode())
        self._rest = body[-10:].encode()

    def finish(self) -> tuple[int, str | None, bytes]:
        """Send the rest; return status, the rate left, and the answer."""
        self._connection.send(self._rest)
        with contextlib.closing(self._connection):
            response = self._connection.getresponse()
            return response.status, response.headers["X-RateLimit-Remaining"], response.read()


def rate_left(portal: Portal, key: str) -> int:
    """Ask how many requests the workspace has left. It costs one."""
    return int(call(portal.port, key, "GET", "/v1/me")[1]["X-RateLimit-Remaining"])


def test_a_call_whose_body_ends_after_its_key_has_ended_is_refused(portal: Portal, new_key: Callable[..., str]) -> None:
    admin, key = new_key("admin", "--test"), new_key("server", "--test")
    body = {"name": "one model", "kind": "secret", "environment": "test", "scopes": ["chat:write"]}
    body["restrictions"] = {"models": ["gpt-4o"]}
    restricted = call(portal.port, admin, "POST", "/v1/keys", body)[2]
    ids = {line.split("\t")[0] for line in portal.command("key", "list").stdout.splitlines() if "server" in line}
    left = rate_left(portal, admin)
    halves = [HalfSent(portal.port, one) for one in (key, restricted["key"], admin)]
    # Two are let in and counted, as each question is. A key that may use some models alone is counted after the body.
    asked = itertools.count(1)
    assert wait_until(lambda: rate_left(portal, admin) == left - 2 - next(asked), 10)
    time.sleep(2 * LATE_SECONDS)
    for key_id in (*ids, restricted["id"]):
        assert call(portal.port, admin, "DELETE", f"/v1/keys/{key_id}")[0] == 200
    answers = [half.finish() for half in halves]
    assert [status for status, _, _ in answers] == [403, 403, 200]
    assert all(b"invalid_api_key" in content for _, _, content in answers[:2])
    assert answers[0][1] is not None, "the call was counted, and its answer tells the rate"


@pytest.fixture
def busy_portal(storage: dict[str, str]) -> Iterator[Portal]:
    """A portal with four workers and two workspaces: alice's, and bob's, whose plan comes and goes."""
    with running_portal({**storage, "ARKA_DEMO": "0"}, workers=4) as portal:
        for name in ("alice", "bob"):
            portal.command("user", "create", f"{name}@northwind.example", input=PASSWORD + "\n")
            portal.command("workspace", "set-plan", name, "enterprise", "--requests-per-minute", "1000000")
        yield portal


class Operator:
    """Changes the plan of bob's workspace as the command does, from another process than the workers."""

    def __init__(self, portal: Portal) -> None:
        self._app = create_app(config.load(portal.environment))

    def put_on(self, plan: str) -> None:
        with self._app.app_context():
            limit = 1_000_000 if plan == "enterprise" else None
            bobs = workspaces.get_by_slug("bob")
            workspaces.set_plan(bobs, plan, requests_per_minute=limit, actor=Actor("command", "tests"))

    def close(self) -> None:
        with self._app.app_context():
            db.engine.dispose()
            parts().quick.close()


def end(port: int, admin: str, key_id: str, act: str) -> None:
    """End a key, and return when the answer has arrived; an expiry a moment later has then passed as well."""
    path = f"/v1/keys/{key_id}"
    if act == "delete":
        status = call(port, admin, "DELETE", path)[0]
    elif act == "rotate":
        status = call(port, admin, "POST", f"{path}/rotate", {"overlap": "now"})[0]
    elif act == "expire":
        status = expire(port, admin, path)
    else:
        status = call(port, admin, "POST", f"{path}/disable", {})[0]
    assert status == 200, (act, status)


def expire(port: int, admin: str, path: str) -> int:
    """Let the key expire in a moment, wait for it, and return the status of the change."""
    status = 0
    # On a busy machine the first moment may be over before it has arrived.
    for seconds in (0.15, 1, 5, 15):
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        status = call(port, admin, "PATCH", path, {"expires_at": moment.isoformat()})[0]
        if status == 200:
            time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 0.001)
            break
    return status


class Connections:
    """Kept connections, spread over the workers."""

    def __init__(self, port: int, number: int) -> None:
        self._kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(number)]

    def statuses(self, key: str) -> set[int]:
        """Call once on each."""
        found = set()
        for connection in self._kept:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            found.add(response.status)
        return found

    def close(self) -> None:
        for connection in self._kept:
            connection.close()


@contextlib.contextmanager
def load(port: int, key: str, threads: int) -> Iterator[None]:
    """Keep all workers busy meanwhile."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            call(port, key)

    working = [threading.Thread(target=work) for _ in range(threads)]
    for thread in working:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in working:
            thread.join(60)


ENDS = ("delete", "disable", "rotate", "expire", "withdraw the plan")


@pytest.mark.alone
@pytest.mark.timeout(400)
def test_in_200_repetitions_under_load_no_ended_key_is_accepted(busy_portal: Portal) -> None:
    port = busy_portal.port
    admins = {}
    for name in ("alice", "bob"):
        made = busy_portal.command("key", "create", "--workspace", name, "--name", "admin", "--test")
        admins[name] = made.stdout.strip()
    with contextlib.ExitStack() as stack:
        operator = stack.enter_context(contextlib.closing(Operator(busy_portal)))
        connections = stack.enter_context(contextlib.closing(Connections(port, 8)))
        stack.enter_context(load(port, admins["alice"], threads=3))
        for number in range(200):
            act = ENDS[number % len(ENDS)]
            admin = admins["bob" if act == "withdraw the plan" else "alice"]
            body = {"name": f"short-lived {number}", "kind": "secret", "environment": "test", "scopes": ["models:read"]}
            status, _, key = call(port, admin, "POST", "/v1/keys", body)
            assert status == 201, key
            assert connections.statuses(key["key"]) == {200}
            if act == "withdraw the plan":
                operator.put_on("starter")
            else:
                end(port, admin, key["id"], act)
            assert connections.statuses(key["key"]) == {403}, (number, act)
            if act == "withdraw the plan":
                operator.put_on("enterprise")
                assert connections.statuses(key["key"]) == {200}, (number, act)
