"""On what a test run keeps its data: ``ARKA_TEST_DATABASE`` decides.

- not set: tests that can differ run on SQLite and on PostgreSQL, the others on SQLite, as the portal comes;
- ``postgresql``: every test runs on PostgreSQL, and counts limits in Valkey, as the portal does when it has grown;
- ``postgresql-rest``: of those, only the ones that have not run on PostgreSQL in a run without the variable, and none
  marked ``looks``: how pages look does not depend on where their data came from.

What is about the SQLite files themselves, or runs on them in any case, is marked ``embedded`` and left out of the
last two.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.neighbours import portal
from tests.neighbours.postgres import Postgres
from tests.neighbours.valkey import Valkey

VARIABLE = "ARKA_TEST_DATABASE"
_WANTED = os.environ.get(VARIABLE, "")
GROWN = _WANTED.startswith("postgresql")
KINDS = ["postgresql"] if GROWN else ["sqlite", "postgresql"]
_ON_BOTH = {"database_url", "one_database_url", "storage"}


def pytest_configure(config: pytest.Config) -> None:
    if _WANTED not in ("", "postgresql", "postgresql-rest"):
        raise pytest.UsageError(f"{VARIABLE} is postgresql, postgresql-rest or not set")
    config.addinivalue_line("markers", "looks: looks at pages in a browser, in many ways; once is enough")
    config.addinivalue_line("markers", "embedded: about SQLite, or always on it, so it runs on nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not GROWN:
        return
    left_out = [item for item in items if item.get_closest_marker("embedded") or _adds_nothing(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _adds_nothing(item: pytest.Item) -> bool:
    """Tell whether a run without the variable carries this out on PostgreSQL, or the kind of database is not in it."""
    if _WANTED != "postgresql-rest":
        return False
    names = set(getattr(item, "fixturenames", ()))
    if _ON_BOTH & set(getattr(getattr(item, "callspec", None), "params", {})) or names & {"postgres", "postgres_url"}:
        return True
    if item.path.parent.name == "portal":
        return False
    return item.get_closest_marker("looks") is not None or not names & {"app", "one_database_url"}


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database: the test runs once with each kind."""
    return _url(str(request.param), request, tmp_path)


@pytest.fixture
def one_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, for tests in which the kind hardly matters; parametrized by ``KINDS``, both."""
    return _url(str(getattr(request, "param", KINDS[0])), request, tmp_path)


def _url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def limits_of_run(request: pytest.FixtureRequest) -> dict[str, str]:
    """The setting for where limits are counted, if the run wants another than the default."""
    if GROWN:
        return {"ARKA_RATELIMIT_STORAGE_URI": request.getfixturevalue("empty_redis_url")}
    return {}


@pytest.fixture(scope="session", autouse=True)
def _portals_of_their_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """Portals that are told of no database get one of the kind that the run wants, with the tables in it."""
    if not GROWN:
        portal.lay_tables = lambda instance: _lay(request.getfixturevalue("sqlite_tables"), instance)
        yield
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    valkey: Valkey = request.getfixturevalue("valkey")

    def fresh() -> dict[str, str]:
        postgres.start()
        valkey.start()
        valkey.empty()
        url = postgres.url_of(postgres.create_database(request.getfixturevalue("postgres_tables")))
        return {"ARKA_DATABASE_URL": url, "ARKA_RATELIMIT_STORAGE_URI": valkey.url}

    def drop(own: Mapping[str, str]) -> None:
        if own:
            postgres.start()
            postgres.drop_database(own["ARKA_DATABASE_URL"].rpartition("/")[2])

    portal.default_storage, portal.drop_storage = fresh, drop
    yield


def _lay(tables: Path, instance: Path) -> None:
    instance.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(tables, instance / "portal.db")
    (instance / "portal.db").chmod(0o600)
