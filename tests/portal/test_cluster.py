"""Two nodes are one portal: what one of them counts, ends or loses, the other knows."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from config import ROOT, load
from tests.neighbours.fake_provider import OPENAI_KEY, FakeProvider
from tests.neighbours.portal import Portal
from tests.neighbours.postgres import Postgres
from tests.neighbours.processes import wait_until
from tests.neighbours.valkey import Valkey
from tests.portal.calls import CHAT, HELLO, PASSWORD, call
from tests.portal.cluster import Cluster, running_cluster
from tests.portal.test_metrics import ANSWERED, numbers

# Longer than nginx leaves a node alone, and than it keeps an idle connection.
DRAIN_SECONDS = "2"
STREAMED = {**HELLO, "stream": True}


@pytest.fixture(scope="module")
def cluster(postgres: Postgres, valkey: Valkey, _provider_server: FakeProvider) -> Iterator[Cluster]:
    """Two nodes that were started at the same moment on an empty database."""
    postgres.start()
    valkey.start()
    valkey.empty()
    _provider_server.start()
    name = postgres.create_database()
    storage = {"ARKA_DATABASE_URL": postgres.url_of(name), "ARKA_RATELIMIT_STORAGE_URI": valkey.url}
    more = {"ARKA_DRAIN_SECONDS": DRAIN_SECONDS, "ARKA_OPENAI_BASE_URL": _provider_server.openai_base_url}
    with running_cluster(storage, **more) as cluster:
        yield cluster
    postgres.drop_database(name)


@pytest.fixture(autouse=True)
def _all_up(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if not node.is_running():
            node.start()
        assert wait_until(lambda node=node: cluster.is_ready(node), 20)  # type: ignore[misc]


def ask(cluster: Cluster, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(load(cluster.nodes[0].environment).database_url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return found


class Load:
    """Callers with kept connections, half of whom stream; what each of their calls came to."""

    def __init__(self, port: int, key: str, callers: int = 6) -> None:
        self.outcomes: Counter[str] = Counter()
        self.answered: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._arguments = port, key
        self._threads = [
            threading.Thread(target=self._work, args=(STREAMED if number % 2 else HELLO,)) for number in range(callers)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _work(self, body: dict[str, Any]) -> None:
        port, key = self._arguments
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", CHAT, json.dumps(body), {"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                content = response.read()
                outcome = str(response.status)
                if body is STREAMED and outcome == "200" and not content.endswith(b"data: [DONE]\n\n"):
                    outcome = "cut off"
            except (OSError, http.client.HTTPException) as error:
                outcome = repr(error)
                connection.close()
            # Enough of them, and room for nodes that start.
            time.sleep(0.01)
            with self._lock:
                self.outcomes[outcome] += 1
                if outcome == "200":
                    self.answered.append(response.headers["X-Request-Id"])
        connection.close()


def test_nodes_that_start_together_on_an_empty_database_all_serve(cluster: Cluster) -> None:
    """The fixture has started them so."""
    head = (ROOT / "migrations" / "head").read_text().strip()
    assert ask(cluster, "SELECT version_num FROM alembic_version") == [(head,)]
    assert {call(node.port, None, path="/readyz")[0] for node in cluster.nodes} == {200}


def test_a_limit_is_exact_over_nodes_directly_and_through_nginx(cluster: Cluster) -> None:
    command = cluster.nodes[1].command
    command("user", "create", "bob@northwind.example", input=PASSWORD + "\n")
    command("workspace", "set-plan", "bob", "enterprise", "--requests-per-minute", "300")
    key = cluster.key("load", workspace="bob")
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def work(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(50):
            connection.request("POST", CHAT, json.dumps(HELLO), {"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            with lock:
                statuses[response.status] += 1
        connection.close()

    ports = [node.port for node in cluster.nodes] * 2 + [cluster.port] * 4
    threads = [threading.Thread(target=work, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert statuses == {200: 300, 429: 100}


@pytest.mark.parametrize("act", ["delete", "disable", "rotate"])
def test_a_key_that_one_node_has_ended_is_refused_by_the_other_from_the_next_call_on(
    cluster: Cluster, act: str
) -> None:
    admin = cluster.key(f"admin {act}")
    here, there = (node.port for node in cluster.nodes)
    kept = [http.client.HTTPConnection("127.0.0.1", there, timeout=30) for _ in range(6)]

    def statuses(key: str) -> set[int]:
        found = set()
        for connection in kept:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            found.add(response.status)
        return found

    for number in range(15):
        body = {"name": f"{act} {number}", "kind": "secret", "environment": "test", "scopes": ["models:read"]}
        made = call(here, admin, "POST", "/v1/keys", body)[2]
        assert statuses(made["key"]) == {200}
        ended = {
            "delete": ("DELETE", f"/v1/keys/{made['id']}", None),
            "disable": ("POST", f"/v1/keys/{made['id']}/disable", {}),
            "rotate": ("POST", f"/v1/keys/{made['id']}/rotate", {"overlap": "now"}),
        }[act]
        assert call(here, admin, *ended)[0] == 200
        assert statuses(made["key"]) == {403}, number
        assert call(cluster.port, made["key"])[0] == 403
    for connection in kept:
        connection.close()


@pytest.mark.alone
def test_a_rolling_restart_under_load_fails_no_request_and_cuts_no_stream(
    cluster: Cluster, provider: FakeProvider
) -> None:
    key = cluster.key("rolling")
    live = live_key(cluster, provider)
    with Load(cluster.port, key) as load:
        for node in cluster.nodes:
            before = len(load.answered)
            long = InBackground(lambda: call(cluster.port, live, "POST", CHAT, slow_stream()))
            assert wait_until(lambda: provider.in_flight > 0, 10)
            assert node.stop(30) == 0
            node.start()
            assert wait_until(lambda node=node: cluster.is_ready(node), 20)  # type: ignore[misc]
            status, _, content = long.result()
            assert (status, content.endswith(b"data: [DONE]\n\n")) == (200, True)
            assert len(load.answered) > before + 20
    assert set(load.outcomes) == {"200"}
    assert_all_kept(cluster, load)


def slow_stream() -> dict[str, Any]:
    """Four seconds of it, so longer than the node drains."""
    messages = [{"role": "user", "content": "one two three four five six seven eight nine ten"}]
    return {"model": "fault-slow:0.3", "stream": True, "messages": messages}


class InBackground:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._found.append(work()))
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(60)
        return self._found[0]


def live_key(cluster: Cluster, provider: FakeProvider) -> str:
    command = cluster.nodes[0].command
    command("provider", "set", "--workspace", "alice", "openai", input=OPENAI_KEY)
    made = command("key", "create", "--workspace", "alice", "--name", f"live {time.monotonic()}")
    assert made.returncode == 0, made.stderr
    provider.reset()
    return made.stdout.strip()


def assert_all_kept(cluster: Cluster, load: Load) -> None:
    """Every call that was answered has its row, and none has two."""
    kept = Counter(row[0] for row in ask(cluster, "SELECT request_id FROM usage_record"))
    assert [one for one in load.answered if kept[one] != 1] == []
    assert len(set(load.answered)) == len(load.answered)


@pytest.mark.alone
def test_a_node_killed_under_load_loses_no_answered_call_and_the_other_carries_on(
    cluster: Cluster, provider: FakeProvider
) -> None:
    killed, other = cluster.nodes
    live = live_key(cluster, provider)
    # A call that holds money on the node that is going to die.
    ask_and_change(cluster, "UPDATE workspace SET monthly_limit_nano_usd = 1000000000000, allow_unknown_price = true")
    hung = InBackground(lambda: hang(killed.port, live))
    assert wait_until(lambda: ask(cluster, "SELECT count(*) FROM spending_hold") == [(1,)], 10)
    key = cluster.key("survivor")
    with Load(cluster.port, key) as load:
        # A node that was restarted before is left alone by nginx until it has answered one call again.
        began = [answered_by(node) for node in cluster.nodes]
        assert wait_until(
            lambda: all(answered_by(node) > first + 10 for node, first in zip(cluster.nodes, began, strict=True)), 20
        )
        killed.kill()
        died = time.monotonic()
        hung.result()
        before = len(load.answered)
        assert wait_until(lambda: len(load.answered) > before + 50, 20)
        failed = load.outcomes.total() - load.outcomes["200"]
        time.sleep(1)
        # Those in flight when it died, one for each caller at most; after that nginx knows.
        assert load.outcomes.total() - load.outcomes["200"] == failed <= 6
        assert cluster.is_ready(other)
    assert_all_kept(cluster, load)
    assert wait_until(lambda: ask(cluster, "SELECT count(*) FROM spending_hold") == [(0,)], 40)
    assert ask(cluster, "SELECT sum(held_nano_usd) FROM spending_counter") in ([(0,)], [(None,)])
    print(f"holds of the dead node were released after {time.monotonic() - died:.0f} s")
    open_rows = "SELECT count(*) FROM usage_record WHERE ended_at IS NULL"
    assert wait_until(lambda: ask(cluster, open_rows) == [(0,)], 20)


def answered_by(node: Portal) -> float:
    """How many chat requests a node has answered since it was started."""
    return numbers(node).get(ANSWERED, 0)


def hang(port: int, key: str) -> str:
    body = {"model": "fault-hang:60", "max_tokens": 20, "messages": HELLO["messages"]}
    try:
        return str(call(port, key, "POST", CHAT, body)[0])
    except (OSError, http.client.HTTPException) as error:
        return repr(error)


def ask_and_change(cluster: Cluster, statement: str) -> None:
    engine = create_engine(load(cluster.nodes[0].environment).database_url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_old_code_serves_on_over_newer_tables_and_says_so_when_it_starts(cluster: Cluster) -> None:
    """A newer node has upgraded: a table and a column more, and a revision that the code here does not know."""
    key = cluster.key("old code", "--scope", "chat:write", "--scope", "models:read", "--scope", "keys:write")
    old, other = cluster.nodes
    head = ask(cluster, "SELECT version_num FROM alembic_version")[0][0]
    # Behind nginx one node may die; the other answers all along.
    load = Load(other.port, key)
    try:
        with load:
            assert wait_until(lambda: len(load.answered) > 10, 20)
            for statement in (
                "ALTER TABLE workspace ADD COLUMN of_tomorrow text NOT NULL DEFAULT 'none'",
                "ALTER TABLE usage_record ADD COLUMN of_tomorrow integer",
                "CREATE TABLE tomorrow (id varchar(32) PRIMARY KEY, workspace_id varchar(32) REFERENCES workspace(id))",
                "UPDATE alembic_version SET version_num = '9999'",
            ):
                ask_and_change(cluster, statement)
            for node in (old, other):
                assert_serves(node, key)
            old.kill()
            old.start()
            assert "a newer version of the portal has changed the database" in old.stderr()
            assert_serves(old, key)
            before = len(load.answered)
            assert wait_until(lambda: len(load.answered) > before + 50, 20)
        assert set(load.outcomes) == {"200"}
        assert_all_kept(cluster, load)
        made = old.command("user", "create", "carol@northwind.example", input=PASSWORD + "\n")
        assert made.returncode == 0, made.stderr
        refused = old.command("db", "upgrade")
        assert refused.returncode != 0
        doctor = old.command("doctor")
        assert "newer version of the portal" in doctor.stdout + doctor.stderr
    finally:
        for statement in (
            "DROP TABLE tomorrow",
            "ALTER TABLE usage_record DROP COLUMN of_tomorrow",
            "ALTER TABLE workspace DROP COLUMN of_tomorrow",
            f"UPDATE alembic_version SET version_num = '{head}'",
        ):
            ask_and_change(cluster, statement)


def assert_serves(node: Portal, key: str) -> None:
    assert call(node.port, None, path="/readyz")[0] == 200
    assert call(node.port, key, "POST", CHAT, HELLO)[0] == 200
    assert call(node.port, key, "POST", CHAT, STREAMED)[2].endswith(b"data: [DONE]\n\n")
    assert call(node.port, None, path="/sign-in")[0] == 200
    settings = {"name": uuid.uuid4().hex, "kind": "secret", "environment": "test", "scopes": ["chat:write"]}
    status, _, made = call(node.port, key, "POST", "/v1/keys", settings)
    assert status == 201, made
    # What was written is read, and works.
    assert call(node.port, made["key"], "POST", CHAT, HELLO)[0] == 200
