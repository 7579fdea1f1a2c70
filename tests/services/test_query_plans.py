"""Pages about one key stay quick however many calls there were: they read the end of an index, never all of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select, text

from extensions import db
from models import WebhookDelivery
from models.base import now
from services import key_history, keys, rotation, usage_watch, webhook_deliveries, webhooks
from tests.calls import Owner, call, keep
from tests.people import Person

# PostgreSQL chooses by the size of its tables, and those of a test are empty.
pytestmark = [pytest.mark.embedded, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]


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
    attempts = by_key.replace("api_key_id_started_at", "attempts")
    for act, place in [
        (lambda: rotation.users_of(key, previous), f"{by_key} AND started_at>?)"),
        (lambda: key_history.attempts_since_end(gone), f"{attempts} AND started_at>?)"),
        (lambda: key_history.recent_calls(key), f"{by_key})"),
        (lambda: keys.last_uses(alice.workspace), f"{by_key})"),
    ]:
        plan = plans(act)
        assert place in plan
        assert "SCAN usage_record" not in plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan or "GROUP BY" in plan


def test_the_calls_of_a_page_of_keys_are_counted_without_reading_one(
    plans: Callable[[Callable[[], Any]], str], alice: Person, mint: Callable[..., keys.Minted]
) -> None:
    """A workspace has a hundred thousand of them in an hour, and every look at the page would read them all."""
    mint()
    plan = plans(lambda: keys.requests_in_days(alice.workspace, 7))
    by_key = "usage_record USING COVERING INDEX ix_usage_record_api_key_id_started_at (api_key_id=?"
    attempts = "usage_record USING INDEX ix_usage_record_attempts (api_key_id=?"
    assert (plan.count(by_key), plan.count(attempts), plan.count("usage_record USING")) == (7, 7, 14)
    assert "SCAN usage_record" not in plan


def test_a_look_at_usage_reads_only_the_rows_since_the_last(
    plans: Callable[[Callable[[], Any]], str], alice: Person, mint: Callable[..., keys.Minted]
) -> None:
    minted = mint()
    usage_watch.look()
    owner = Owner(alice.workspace_id, minted.key.id, minted.key.secrets[0].id)
    keep([call(owner, now(), address=f"203.0.113.{number}") for number in range(3)])
    keep([call(owner, now(), code="rate_limit_exceeded", status=429)])
    plan = plans(usage_watch.look)
    by_id = "SEARCH usage_record USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
    by_day = "usage_record USING INDEX ix_usage_record_workspace_id_started_at (workspace_id=? AND started_at>?)"
    assert plan.count(by_id) == 2
    assert by_day in plan
    assert "SCAN usage_record" not in plan


def test_what_is_due_is_found_without_reading_what_was_delivered(
    app: Flask, alice: Person, plans: Callable[[Callable[[], Any]], str]
) -> None:
    endpoint = webhooks.create(alice.workspace, actor=alice.actor, url="https://hooks.example/").endpoint
    webhook_deliveries.send_test(alice.workspace, endpoint.id)
    due = str(
        select(WebhookDelivery.endpoint_id)
        .where(webhook_deliveries._waiting, WebhookDelivery.next_attempt_at <= now())
        .compile(db.engine, compile_kwargs={"literal_binds": False})
    )
    plan = " ".join(
        row[3] for row in db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {due}", (now().isoformat(),))
    )
    assert "USING INDEX ix_webhook_delivery_waiting" in plan
