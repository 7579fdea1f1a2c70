"""Running portals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import ReservedPort
from tests.neighbours.storage import GROWN
from tests.portal.calls import PASSWORD


@pytest.fixture(params=["grown"] if GROWN else ["embedded", "grown"])
def storage(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of both ways to run: SQLite and nothing else, or PostgreSQL and Redis."""
    if request.param == "embedded":
        return {}
    return {
        "ARKA_DATABASE_URL": request.getfixturevalue("postgres_url"),
        "ARKA_RATELIMIT_STORAGE_URI": request.getfixturevalue("empty_redis_url"),
    }


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is free, and stays so for this test."""
    reserved = ReservedPort()
    yield reserved.number
    reserved.release()


@pytest.fixture
def portal(storage: dict[str, str]) -> Iterator[Portal]:
    """A portal with two worker processes and no demo."""
    with running_portal({**storage, "ARKA_DEMO": "0"}, workers=2) as portal:
        yield portal


@pytest.fixture
def new_key(portal: Portal) -> Callable[..., str]:
    """Make a key by command in an Agency workspace: ``new_key("name", "--test")``."""
    made = portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
    assert made.stdout == "alice\n", made.stderr
    assert portal.command("workspace", "set-plan", "alice", "agency").returncode == 0

    def make(name: str, *options: str) -> str:
        result = portal.command("key", "create", "--workspace", "alice", "--name", name, *options)
        assert result.returncode == 0, result.stderr
        return result.stdout.removesuffix("\n")

    return make
