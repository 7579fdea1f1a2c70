"""Migrations: numbered, both ways, and equal to the models."""

from __future__ import annotations

import re
from typing import Any

import flask_migrate
from flask import Flask
from sqlalchemy import inspect, text

from config import ROOT
from extensions import db
from models import (
    ApiKey,
    Job,
    MailMessage,
    MasterKeyUse,
    Membership,
    ProviderKey,
    ServerProcess,
    SpendingCounter,
    SpendingHold,
    UsageRecord,
    User,
    Workspace,
)
from models.base import now, transaction
from services import keys, spending
from services.restrictions import Restrictions
from tests.calls import Owner, call, keep
from tests.people import Person

VERSIONS = ROOT / "migrations" / "versions"


def test_models_equal_migrations(app: Flask) -> None:
    # Exits with an error when a migration is missing.
    flask_migrate.check()
    assert set(inspect(db.engine).get_table_names()) == {*db.metadata.tables, "alembic_version"}


def test_migrations_are_numbered_in_one_line_and_the_head_is_on_file() -> None:
    numbers = sorted(path.name[:4] for path in VERSIONS.glob("*.py"))
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    for path in VERSIONS.glob("*.py"):
        found = re.search(r"^revision = \"(\d{4})\"$", path.read_text(), re.MULTILINE)
        assert found
        assert found[1] == path.name[:4]
    assert (ROOT / "migrations" / "head").read_text().strip() == numbers[-1]


def test_migrations_run_both_ways_with_data_in_the_tables(app: Flask, alice: Person) -> None:
    # A call of the playground has no key, which the first tables could not hold.
    keep([call(Owner(alice.workspace_id, None, None), now())])
    db.session.remove()
    flask_migrate.downgrade(revision="base")
    assert inspect(db.engine).get_table_names() == ["alembic_version"]
    flask_migrate.upgrade()
    assert db.session.execute(text("SELECT count(*) FROM workspace")).scalar() == 0


def test_0003_keeps_the_rows_of_before_and_fills_its_columns_with_their_defaults(app: Flask, alice: Person) -> None:
    key, call = fill_0003(alice)
    db.session.remove()
    flask_migrate.downgrade(revision="0002")
    names = {"job", "server_process", "spending_counter", "spending_hold", "mail_message", "master_key_use"}
    assert not names & set(inspect(db.engine).get_table_names())
    # The statements of 0002 go on to work on what is left.
    kept = db.session.execute(text("SELECT request_id, model, input_tokens FROM usage_record")).one()
    assert tuple(kept) == (call, "gpt-4o", 7)
    db.session.remove()
    flask_migrate.upgrade()
    assert flask_migrate.check() is None
    row = db.session.query(UsageRecord).one()
    assert (row.request_id, row.input_tokens, row.estimated, row.cost_nano_usd) == (call, 7, False, None)
    found = db.session.get_one(ApiKey, key)
    assert (found.monthly_limit_nano_usd, found.allow_unknown_price, found.requests_per_minute) == (None, False, 60)
    workspace = db.session.get_one(Workspace, alice.workspace_id)
    assert (workspace.daily_limit_nano_usd, workspace.allow_unknown_price) == (None, False)
    provider_key = db.session.query(ProviderKey).one()
    assert (provider_key.label, provider_key.state_words, provider_key.state) == ("", None, "valid")


def fill_0003(alice: Person) -> tuple[str, str]:
    """Put a row into every table and a value into every column that 0003 brings; return a key's and a call's id."""
    restrictions = Restrictions(requests_per_minute=60, monthly_limit_nano_usd=1, allow_unknown_price=True)
    minted = keys.mint(
        alice.workspace, actor=alice.actor, name="k", kind="secret", environment="live", restrictions=restrictions
    )
    spending.set_limits(
        alice.workspace, daily_nano_usd=1, monthly_nano_usd=2, allow_unknown_price=True, actor=alice.actor
    )
    at, of_workspace = now(), {"workspace_id": alice.workspace_id}
    call: dict[str, Any] = {
        "request_id": "req_1", "api_key_id": minted.key.id, "secret_id": "sec_1", "environment": "live",
        "endpoint": "chat/completions", "started_at": at, "status": 200, "streamed": True, "requested_model": "auto",
        "route_reason": "because", "model": "gpt-4o", "provider": "openai", "input_tokens": 7,
        "cached_input_tokens": 3, "estimated": True, "cost_nano_usd": 2**40, "price_version": "v",
        "process_id": "proc_1",
    }  # fmt: skip
    provider_key: dict[str, Any] = {
        "id": "pk_1", "provider": "openai", "sealed": "s", "label": "mine", "state": "valid", "state_seen_at": at,
        "state_words": "fine", "credit_nano_usd": 2**40, "created_at": at, "updated_at": at, "created_by_name": "a",
    }  # fmt: skip
    mail: dict[str, Any] = {
        "id": "mail_1", "recipient": "a@b.example", "subject": "s", "text": "t", "html": "h", "created_at": at,
        "attempts": 0, "next_attempt_at": at,
    }  # fmt: skip
    with transaction() as session:
        session.add_all(
            [
                UsageRecord(**call, **of_workspace),
                ProviderKey(**provider_key, **of_workspace),
                MailMessage(**mail, **of_workspace),
                Job(name="work", holder="proc_1", held_until=at),
                ServerProcess(id="proc_1", node="n", started_at=at, alive_until=at),
                MasterKeyUse(key_id="k1", seals=1, first_used_at=at),
                SpendingCounter(
                    owner_id="o", period="2026-11", spent_nano_usd=2**40, held_nano_usd=1, created_at=at, **of_workspace
                ),
                SpendingHold(
                    request_id="req_1",
                    process_id="proc_1",
                    counters=["o/2026-11"],
                    nano_usd=1,
                    created_at=at,
                    **of_workspace,
                ),
            ]
        )
    filled = {table.name for table in db.metadata.tables.values() if db.session.query(table).first() is not None}
    assert {"job", "server_process", "spending_counter", "spending_hold", "mail_message", "master_key_use"} <= filled
    return minted.key.id, "req_1"


def test_0005_keeps_people_and_their_workspaces_both_ways(app: Flask, alice: Person) -> None:
    with transaction() as session:
        session.get_one(User, alice.user_id).muted_notices = ["spending"]
    db.session.remove()
    flask_migrate.downgrade(revision="0004")
    assert "muted_notices" not in {column["name"] for column in inspect(db.engine).get_columns("user")}
    assert db.session.execute(text("SELECT count(*) FROM membership")).scalar() == 1
    # A node of the version before goes on writing to the table, also after the upgrade.
    insert = text(
        'INSERT INTO "user" (id, email, password_hash, is_operator, time_zone, created_at)'
        " VALUES (:id, :id, '', false, 'UTC', CURRENT_TIMESTAMP)"
    )
    db.session.execute(insert, {"id": "usr_before"})
    db.session.commit()
    db.session.remove()
    flask_migrate.upgrade()
    assert flask_migrate.check() is None
    db.session.execute(insert, {"id": "usr_after"})
    db.session.commit()
    assert [user.muted_notices for user in db.session.query(User)] == [[], [], []]
    assert db.session.query(Membership).one().user_id == alice.user_id


def test_0006_keeps_calls_both_ways(app: Flask, alice: Person) -> None:
    keep([call(Owner(alice.workspace_id, None, None), now())])
    db.session.remove()

    def indexes() -> set[str | None]:
        return {index["name"] for index in inspect(db.engine).get_indexes("usage_record")}

    for move, is_there in ((lambda: flask_migrate.downgrade(revision="0005"), False), (flask_migrate.upgrade, True)):
        move()
        assert ("ix_usage_record_attempts" in indexes()) == is_there
        assert db.session.execute(text("SELECT count(*) FROM usage_record")).scalar() == 1
        db.session.remove()


def test_no_migration_has_only_one_way() -> None:
    for path in VERSIONS.glob("*.py"):
        downgrade = path.read_text().split("def downgrade")[1]
        assert not re.search(r"^\s+pass$", downgrade, re.MULTILINE)
