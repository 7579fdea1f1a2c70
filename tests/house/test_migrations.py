"""Migrations: numbered, both ways, and equal to the models."""

from __future__ import annotations

import re

import flask_migrate
from flask import Flask
from sqlalchemy import inspect, text

from config import ROOT
from extensions import db
from models.base import now
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


def test_no_migration_has_only_one_way() -> None:
    for path in VERSIONS.glob("*.py"):
        downgrade = path.read_text().split("def downgrade")[1]
        assert "pass" not in downgrade
