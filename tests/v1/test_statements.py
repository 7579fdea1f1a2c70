"""What one call asks of the databases: one indexed look-up of the key, one count, one usage row, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from models import UsageRecord
from models.quick import Quick
from services import gate, keys, metering
from services.parts import parts
from services.restrictions import Restrictions
from tests.neighbours.fake_provider import OPENAI_KEY
from tests.people import Person, bearer

pytestmark = [pytest.mark.embedded, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


@contextmanager
def statements_of(connection: Any) -> Iterator[list[str]]:
    """What a connection of the driver carries out, by its first word."""
    found: list[str] = []
    connection.set_trace_callback(lambda sql: found.append(sql.split()[0]))
    yield found
    connection.set_trace_callback(None)


def kept_connection(quick: Quick) -> Any:
    connection = quick._kept.take()
    quick._kept.give_back(connection)
    return connection


def question(person: Person, minted: keys.Minted, own_limit: int | None, streamed: bool) -> dict[str, Any]:
    """A chat call with a key, which gets this limit of its own first."""
    restrictions = Restrictions(requests_per_minute=own_limit)
    keys.change(person.workspace, minted.key.id, actor=person.actor, restrictions=restrictions)
    return {"json": {**CHAT, "stream": streamed}, "headers": bearer(minted.secret)}


@pytest.mark.parametrize("own_limit", [None, 100])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_costs_one_look_up_one_count_and_its_row(
    client: FlaskClient,
    mint: Callable[..., keys.Minted],
    connect: Callable[[str, str], None],
    alice: Person,
    streamed: bool,
    own_limit: int | None,
) -> None:
    connect("openai", OPENAI_KEY)
    asked = question(alice, mint(environment="live"), own_limit, streamed)
    # The first one opens connections and begins the window.
    assert client.post("/v1/chat/completions", **asked).status_code == 200
    limits: Any = parts().limits
    with (
        statements_of(kept_connection(parts().quick)) as of_database,
        statements_of(limits._storage._file._connection) as of_limits,
    ):
        answer = client.post("/v1/chat/completions", **asked)
        assert answer.status_code == 200
        assert answer.data
    assert of_database == (["SELECT", "INSERT", "UPDATE"] if streamed else ["SELECT", "INSERT"])
    assert of_limits == ["INSERT"]


def test_a_call_finds_its_key_and_its_row_by_an_index(app: Flask, alice: Person) -> None:
    connection = kept_connection(parts().quick)
    for statement in (gate._FIND, metering.settling._SETTLE):
        compiled = statement.compiled(parts().quick._dialect)
        values = dict.fromkeys(compiled._names, b"")
        rows = connection.execute(f"EXPLAIN QUERY PLAN {compiled.sql}", list(values.values())).fetchall()
        assert rows
        assert not [row[3] for row in rows if row[3].startswith("SCAN") and "CONSTANT" not in row[3]], rows


def test_no_empty_column_of_a_usage_row_is_sent_and_the_database_leaves_it_empty(
    client: FlaskClient, mint: Callable[..., keys.Minted], connect: Callable[[str, str], None]
) -> None:
    connect("openai", OPENAI_KEY)
    sent: list[str] = []
    connection = kept_connection(parts().quick)
    connection.set_trace_callback(lambda sql: sent.append(sql))
    answer = client.post("/v1/chat/completions", json=CHAT, headers=bearer(mint(environment="live").secret))
    connection.set_trace_callback(None)
    (row,) = [sql for sql in sent if sql.startswith("INSERT INTO usage_record")]
    assert answer.status_code == 200
    assert "NULL" not in row
    assert "user_id" not in row
    columns = UsageRecord.__table__.columns
    assert not [column.name for column in columns if column.nullable and column.server_default is not None]
