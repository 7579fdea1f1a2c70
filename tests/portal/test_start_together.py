"""Several portals that start at once: on an empty database one makes the tables, on one port one serves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text

from config import ROOT, load
from tests.neighbours.portal import Portal
from tests.neighbours.processes import NeighbourError, temporary_folder, wait_until

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


def started(portal: Portal) -> bool:
    try:
        portal.start()
    except NeighbourError:
        return False
    return True


def test_of_two_portals_at_once_on_one_port_one_serves_and_the_other_says_why_not(port: int) -> None:
    with contextlib.ExitStack() as stack:
        portals = []
        for _ in range(2):
            folder = stack.enter_context(temporary_folder("arka-portal-"))
            portals.append(Portal({"ARKA_DEMO": "0", "ARKA_WORKERS": "1"}, folder, port))
            stack.callback(portals[-1].drop)
            stack.callback(portals[-1].kill)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(started, portals))
        # Both greet when they have come as far as that.
        assert wait_until(lambda: sum(portal.is_running() for portal in portals) < 2 or all_greet(portals), 30)
        (serving,) = [portal for portal in portals if portal.is_running()]
        (refused,) = [portal for portal in portals if portal is not serving]
        assert f"Cannot listen on 127.0.0.1 port {port} (Address already in use)" in refused.stderr()
        assert "ARKA_PORT" in refused.stderr()
        assert "Traceback" not in refused.stderr()
        assert serving._is_healthy()
        # The port is free for the next one as soon as this one has ended.
        assert serving.stop() == 0
        assert started(refused)


def all_greet(portals: list[Portal]) -> bool:
    return all("Ctrl-C" in portal.stdout() for portal in portals)
