"""What one call asks of PostgreSQL and of Redis: each question is a round trip over the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from models.postgresql_connection import BoundedConnection
from models.quick import Quick
from services import gate, keys, metering
from services.parts import parts
from tests.neighbours.fake_provider import OPENAI_KEY
from tests.people import Person
from tests.v1.test_statements import question

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

# After so many times its driver has prepared a statement.
REPETITIONS = 8


@pytest.fixture
def environment(environment: dict[str, str], empty_redis_url: str) -> dict[str, str]:
    return environment | {"ARKA_RATELIMIT_STORAGE_URI": empty_redis_url}


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each exchange with PostgreSQL, on whatever connection."""
    found: list[None] = []
    wait = BoundedConnection.wait

    def counted(self: BoundedConnection, *given: Any, **more: Any) -> Any:
        found.append(None)
        return wait(self, *given, **more)

    monkeypatch.setattr(BoundedConnection, "wait", counted)
    return found


@contextmanager
def commands_of(url: str) -> Iterator[Counter[str]]:
    """How often which command was sent to Redis, by others."""
    redis: Redis = Redis.from_url(url)
    before, found = _calls(redis), Counter[str]()
    yield found
    found.update(_calls(redis) - before)
    del found["info"]
    redis.close()


def _calls(redis: Redis) -> Counter[str]:
    told: Any = redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): figures["calls"] for name, figures in told.items()})


@pytest.mark.parametrize("own_limit", [None, 100])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_asks_postgresql_for_its_key_and_its_row_and_redis_once(
    client: FlaskClient,
    mint: Callable[..., keys.Minted],
    connect: Callable[[str, str], None],
    alice: Person,
    exchanges: list[None],
    empty_redis_url: str,
    streamed: bool,
    own_limit: int | None,
) -> None:
    connect("openai", OPENAI_KEY)
    asked = question(alice, mint(environment="live"), own_limit, streamed)
    for _ in range(REPETITIONS):
        assert client.post("/v1/chat/completions", **asked).status_code == 200
    exchanges.clear()
    with commands_of(empty_redis_url) as of_redis:
        answer = client.post("/v1/chat/completions", **asked)
        assert answer.status_code == 200
        assert answer.data
    # A stream's row is opened and then completed.
    assert len(exchanges) == (3 if streamed else 2)
    assert of_redis["evalsha"] == 1
    # What the script itself asks is told as well; beside that there is nothing.
    assert not {"eval", "script|load", "get", "incr", "ping"} & set(+of_redis)


def test_a_call_finds_its_key_and_its_row_by_an_index(client: FlaskClient, alice: Person) -> None:
    quick: Quick = parts().quick
    with quick.aside() as cursor:
        # In tables that are almost empty an index is no gain.
        cursor.execute("SET enable_seqscan = off")
        for statement in (gate._FIND, metering.settling._SETTLE):
            compiled = statement.compiled(quick._dialect)
            # What a row is found by: that none is NULL is known without looking.
            values = dict.fromkeys(compiled._names) | {"digest": b"", "of_request": "none"}
            cursor.execute(f"EXPLAIN {compiled.sql}", values)
            plan = [row[0] for row in cursor.fetchall()]
            assert any("Index" in line for line in plan), plan
            assert not [line for line in plan if "Seq Scan" in line], plan
        cursor.execute("RESET enable_seqscan")
