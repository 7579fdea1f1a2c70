"""Pages about one key stay quick however many calls there were: they read the end of an index, never all of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, text

from extensions import db
from models.base import now
from services import key_history, keys, rotation
from tests.people import Person

# PostgreSQL chooses by the size of its tables, and those of a test are empty.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def plans(app: Flask) -> Callable[[Callable[[], Any]], str]:
    """What the database means to do for the queries on usage that an act makes."""

    def plans(act: Callable[[], Any]) -> str:
        asked: list[tuple[str, Any]] = []

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if "usage_record" in statement:
                asked.append((statement, parameters))

        event.listen(db.engine, "before_cursor_execute", note)
        act()
        event.remove(db.engine, "before_cursor_execute", note)
        connection = db.session.connection()
        assert asked
        rows = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            for statement, parameters in asked
        ]
        return " ".join(row[3] for found in rows for row in found)

    return plans


def test_what_a_key_did_is_read_from_the_end_of_its_index(
    plans: Callable[[Callable[[], Any]], str], alice: Person, mint: Callable[..., keys.Minted]
) -> None:
    db.session.execute(text("SELECT 1"))
    key, gone = mint().key, mint().key
    rotation.rotate(alice.workspace, key.id, actor=alice.actor, until=now() + timedelta(hours=1))
    keys.delete(alice.workspace, gone.id, actor=alice.actor)
    previous = rotation.previous_secret(key)
    assert previous is not None
    by_key = "usage_record USING INDEX ix_usage_record_api_key_id_started_at (api_key_id=?"
    for act, place in [
        (lambda: rotation.users_of(key, previous), f"{by_key} AND started_at>?)"),
        (lambda: key_history.attempts_since_end(gone), f"{by_key} AND started_at>?)"),
        (lambda: key_history.recent_calls(key), f"{by_key})"),
        (lambda: keys.last_uses(alice.workspace), f"{by_key})"),
    ]:
        plan = plans(act)
        assert place in plan
        assert "SCAN usage_record" not in plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan or "GROUP BY" in plan
