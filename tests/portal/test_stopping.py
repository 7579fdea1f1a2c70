"""The portal is told to stop: what is in flight finishes within its time, and nothing is answered by half."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.neighbours.fake_provider import OPENAI_KEY, FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.postgres import Postgres
from tests.neighbours.processes import wait_until
from tests.portal.calls import CHAT, HELLO, PASSWORD, call
from tests.portal.database import run

WORDS = "one two three four five six"


@dataclass(frozen=True)
class Prepared:
    """An instance with a workspace, a connected provider and two keys, to be copied with what it keeps elsewhere."""

    instance: Path
    storage: dict[str, str]
    live_key: str
    test_key: str


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, _provider_server: FakeProvider) -> Iterator[Prepared]:
    _provider_server.start()
    _provider_server.reset()
    folder = tmp_path_factory.mktemp("prepared")
    settings = {"ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": _provider_server.openai_base_url}
    portal = Portal(settings, folder, 1)
    command = portal.command
    assert command("db", "upgrade").returncode == 0
    command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
    command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
    command("provider", "set", "--workspace", "alice", "openai", input=OPENAI_KEY)
    live = command("key", "create", "--workspace", "alice", "--name", "x")
    test = command("key", "create", "--workspace", "alice", "--name", "t", "--test")
    assert live.returncode == test.returncode == 0, live.stderr
    names = {"ARKA_DATABASE_URL", "ARKA_RATELIMIT_STORAGE_URI"} & set(portal.environment)
    storage = {name: portal.environment[name] for name in names}
    yield Prepared(portal.instance_path, storage, live.stdout.strip(), test.stdout.strip())
    portal.drop()


@pytest.fixture
def serving(
    prepared: Prepared, provider: FakeProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Portal]]:
    """Start a portal on a copy of the prepared instance: ``serving(ARKA_STOP_SECONDS="2")``."""
    with contextlib.ExitStack() as stack:

        def start(**settings: str) -> Portal:
            shutil.copytree(prepared.instance, tmp_path / "instance")
            given = {"ARKA_INSTANCE_PATH": str(tmp_path / "instance"), "ARKA_OPENAI_BASE_URL": provider.openai_base_url}
            if prepared.storage:
                postgres: Postgres = request.getfixturevalue("postgres")
                name = postgres.create_database(prepared.storage["ARKA_DATABASE_URL"].rpartition("/")[2])
                stack.callback(postgres.drop_database, name)
                given |= prepared.storage | {"ARKA_DATABASE_URL": postgres.url_of(name)}
            return stack.enter_context(running_portal(given | settings))

        yield start


def slow(seconds: float, *, streamed: bool) -> dict[str, Any]:
    """A request whose answer takes so long: the whole, or each event of a stream."""
    messages = [{"role": "user", "content": WORDS}]
    return {"model": f"fault-slow:{seconds}", "stream": streamed, "messages": messages}


class Background:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.result = work()
        except (OSError, http.client.HTTPException) as error:
            self.result = error

    def wait(self) -> Any:
        self._thread.join(60)
        return self.result


def begin_upload(port: int, key: str) -> Callable[[], bytes]:
    """Send half of a request; return what sends the rest and reads the answer."""
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 4000}]}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(head.encode() + b"\r\n" + body[:5000])

    def finish() -> bytes:
        with connection:
            connection.sendall(body[5000:])
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    return finish


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def rows(portal: Portal) -> list[tuple[Any, ...]]:
    return run(portal, "SELECT status, code, ended_at IS NOT NULL FROM usage_record ORDER BY id")


def stop(portal: Portal, number: signal.Signals = signal.SIGTERM) -> Background:
    """Ask it to stop, and go on; the result is its exit status and how long it took."""
    began = time.monotonic()
    os.kill(portal.pid, number)

    def wait() -> tuple[int | None, float]:
        assert wait_until(lambda: not portal.is_running(), 40)
        return portal.stop(), time.monotonic() - began

    return Background(wait)


def test_a_call_a_stream_and_an_upload_in_flight_finish_and_nobody_else_is_let_in(
    serving: Callable[..., Portal], prepared: Prepared, provider: FakeProvider
) -> None:
    portal = serving()
    key = prepared.live_key
    whole = Background(lambda: call(portal.port, key, "POST", CHAT, slow(2, streamed=False)))
    streamed = Background(lambda: call(portal.port, key, "POST", CHAT, slow(0.3, streamed=True)))
    finish_upload = begin_upload(portal.port, key)
    idle = socket.create_connection(("127.0.0.1", portal.port), timeout=10)
    provider.wait_for(2)
    stopped = stop(portal)
    assert wait_until(lambda: is_refused(portal.port), 5)
    assert idle.recv(1) == b"", "an idle connection is closed"
    assert finish_upload().startswith(b"HTTP/1.1 200 ")
    assert whole.wait()[0] == 200
    status, _, content = streamed.wait()
    assert status == 200
    assert content.endswith(b"data: [DONE]\n\n")
    exit_status, seconds = stopped.wait()
    assert exit_status == 0
    assert seconds < 25
    assert rows(portal) == [(200, None, 1)] * 3
    idle.close()


def test_what_takes_too_long_is_cut_off_with_an_error_and_has_its_usage_row(
    serving: Callable[..., Portal], prepared: Prepared, provider: FakeProvider
) -> None:
    portal = serving(ARKA_STOP_SECONDS="2")
    key = prepared.live_key
    whole = Background(lambda: call(portal.port, key, "POST", CHAT, slow(30, streamed=False)))
    streamed = Background(lambda: call(portal.port, key, "POST", CHAT, slow(1.3, streamed=True)))
    provider.wait_for(2)
    unfinished = begin_upload(portal.port, key)
    # Its first event is out.
    assert wait_until(lambda: len(rows(portal)) == 1, 10)
    exit_status, seconds = stop(portal).wait()
    assert exit_status == 0
    assert 2 <= seconds < 25
    status, headers, answer = whole.wait()
    assert (status, answer["error"]["code"]) == (503, "service_unavailable")
    assert int(headers["Retry-After"]) >= 1
    status, _, content = streamed.wait()
    assert status == 200
    last = content.rstrip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "service_unavailable"
    assert b"[DONE]" not in content
    upload = Background(unfinished).wait()
    assert upload == b"" or isinstance(upload, OSError)
    assert sorted(rows(portal)) == [(200, "service_unavailable", 1), (503, "service_unavailable", 1)]
    portal.start()
    listed = portal.command("provider", "list").stdout
    assert "valid" in listed, "that we hung up says nothing about the provider"


def test_a_slow_simulated_stream_is_cut_off_as_well(serving: Callable[..., Portal], prepared: Prepared) -> None:
    portal = serving(ARKA_STOP_SECONDS="1")
    key = prepared.test_key
    body = {**HELLO, "stream": True, "messages": [{"role": "user", "content": "simulate:slow"}]}
    streamed = Background(lambda: call(portal.port, key, "POST", CHAT, body))
    assert wait_until(lambda: len(rows(portal)) == 1, 10)
    exit_status, seconds = stop(portal).wait()
    assert exit_status == 0
    assert seconds < 25
    assert streamed.wait()[0] == 200
    assert [row[2] for row in rows(portal)] == [1]


def test_a_slow_simulated_call_is_cut_off_with_an_error_and_has_its_usage_row(
    serving: Callable[..., Portal], prepared: Prepared
) -> None:
    portal = serving(ARKA_STOP_SECONDS="1")
    body = {**HELLO, "messages": [{"role": "user", "content": "simulate:slow:5"}]}
    whole = Background(lambda: call(portal.port, prepared.test_key, "POST", CHAT, body))
    # It is on its way, and nothing tells of it before its end.
    time.sleep(1)
    exit_status, seconds = stop(portal).wait()
    assert exit_status == 0
    assert seconds < 10
    status, headers, answer = whole.wait()
    assert (status, answer["error"]["code"]) == (503, "service_unavailable")
    assert int(headers["Retry-After"]) >= 1
    assert rows(portal) == [(503, "service_unavailable", 1)]


# There is a file on SQLite only.
@pytest.mark.embedded
def test_what_was_written_is_in_the_database_file_itself_once_the_portal_has_stopped(
    serving: Callable[..., Portal], prepared: Prepared
) -> None:
    portal = serving()
    for _ in range(20):
        assert call(portal.port, prepared.test_key, "POST", CHAT, HELLO)[0] == 200
    assert stop(portal).wait()[0] == 0
    assert [path.name for path in portal.instance_path.glob("portal.db*")] == ["portal.db"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_a_second_time_it_ends_at_once_with_all_its_workers(
    serving: Callable[..., Portal], prepared: Prepared, provider: FakeProvider, number: signal.Signals
) -> None:
    portal = serving()
    key = prepared.live_key
    streamed = Background(lambda: call(portal.port, key, "POST", CHAT, slow(2, streamed=True)))
    provider.wait_for(1)
    stopped = stop(portal)
    time.sleep(0.5)
    os.kill(portal.pid, number)
    exit_status, seconds = stopped.wait()
    assert exit_status == 1
    assert seconds < 10
    assert isinstance(streamed.wait(), (OSError, http.client.HTTPException, tuple))
    assert is_refused(portal.port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_lets_what_is_in_flight_finish(
    serving: Callable[..., Portal], prepared: Prepared, provider: FakeProvider, number: signal.Signals
) -> None:
    """As Ctrl-C in a terminal does, and systemd without KillMode=mixed."""
    portal = serving()
    key = prepared.live_key
    whole = Background(lambda: call(portal.port, key, "POST", CHAT, slow(2, streamed=False)))
    provider.wait_for(1)
    os.killpg(portal.pid, number)
    assert whole.wait()[0] == 200
    assert wait_until(lambda: not portal.is_running(), 30)
    assert portal.stop() == 0


def test_the_next_portal_serves_on_its_port_while_it_still_finishes_a_call(
    serving: Callable[..., Portal], prepared: Prepared, tmp_path: Path
) -> None:
    portal = serving(ARKA_STOP_SECONDS="60")
    finish = begin_upload(portal.port, prepared.test_key)
    ended = stop(portal)
    assert wait_until(lambda: is_refused(portal.port), 10)
    following = Portal({"ARKA_DEMO": "0", "ARKA_WORKERS": "1"}, tmp_path, portal.port)
    try:
        following.start()
        assert portal.is_running()
        assert b"200 OK" in finish()
        assert ended.wait()[0] == 0
    finally:
        following.kill()
        following.drop()


def test_while_it_drains_it_is_not_ready_but_answers_and_lets_go_of_connections(
    serving: Callable[..., Portal], prepared: Prepared
) -> None:
    portal = serving(ARKA_DRAIN_SECONDS="3")
    key = prepared.live_key
    kept = [http.client.HTTPConnection("127.0.0.1", portal.port, timeout=10) for _ in range(8)]
    assert {asked(one, key) for one in kept} == {(200, None)}
    stopped = stop(portal)
    assert wait_until(lambda: call(portal.port, None, path="/readyz")[0] == 503, 2)
    assert call(portal.port, None, path="/readyz")[2]["checks"]["server"] == "is stopping"
    assert {asked(one, key) for one in kept} == {(200, "close")}
    assert call(portal.port, key, "POST", CHAT, HELLO)[0] == 200
    exit_status, seconds = stopped.wait()
    assert exit_status == 0
    assert 3 <= seconds < 25


def asked(connection: http.client.HTTPConnection, key: str) -> tuple[int, str | None]:
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    response.read()
    return response.status, response.headers["Connection"]


def test_no_connection_that_was_made_is_left_without_its_answer(
    serving: Callable[..., Portal], prepared: Prepared
) -> None:
    """Each caller makes a new connection for each call until it cannot make one any more."""
    portal = serving()
    key = prepared.test_key
    seen: Counter[str] = Counter()

    def work() -> None:
        connected = True
        while connected:
            connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=20)
            try:
                connection.connect()
            except OSError:
                connected = False
                continue
            try:
                connection.request("POST", CHAT, json.dumps(HELLO), {"Authorization": f"Bearer {key}"})
                seen[str(connection.getresponse().status)] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[repr(error)] += 1
            finally:
                connection.close()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert stop(portal).wait()[0] == 0
    for thread in threads:
        thread.join(30)
    assert set(seen) == {"200"}
    assert len(rows(portal)) == seen["200"]
