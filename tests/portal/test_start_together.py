"""Several portals that start at once on an empty database: one makes the tables, the others find them made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from config import ROOT, load
from tests.neighbours.portal import Portal
from tests.neighbours.processes import temporary_folder

# The database is opened for the first time after the word, so that all meet at the same moment.
UPGRADE = """
import sys, flask_migrate
from app import create_app
app = create_app()
print("ready", flush=True)
sys.stdin.readline()
with app.app_context():
    flask_migrate.upgrade()
"""


@pytest.fixture
def not_started(database_url: str) -> Iterator[Portal]:
    """A portal that has not been started yet, on an empty database."""
    with temporary_folder("arka-portal-") as folder:
        yield Portal({"ARKA_DATABASE_URL": database_url}, folder, 1)


def revisions(portal: Portal) -> list[str]:
    engine = create_engine(load(portal.environment).database_url)
    with engine.connect() as connection:
        found = [row[0] for row in connection.execute(text("SELECT version_num FROM alembic_version"))]
    engine.dispose()
    return found


def test_of_four_upgrades_at_once_one_migrates_and_none_breaks(not_started: Portal) -> None:
    upgrades = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE],
            env=not_started.environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [upgrade.stdout.readline() for upgrade in upgrades if upgrade.stdout] == ["ready\n"] * 4
    for upgrade in upgrades:
        assert upgrade.stdin
        upgrade.stdin.write("go\n")
        upgrade.stdin.flush()
    for upgrade in upgrades:
        _, complaints = upgrade.communicate(timeout=60)
        assert (upgrade.returncode, complaints) == (0, "")
    assert revisions(not_started) == [(ROOT / "migrations" / "head").read_text().strip()]
