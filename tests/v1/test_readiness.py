"""``/readyz`` tells whether calls can be answered, and names what is missing, but no address and no cause."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.engine import make_url

from extensions import db
from services import doctor, keys, provider_keys, readiness, workspaces
from services.parts import parts
from services.readiness import Finding
from services.secret import Secret
from tests.neighbours.postgres import Postgres
from tests.neighbours.processes import wait_until
from tests.people import Person, bearer
from tests.services.limit_worker import NOBODY

Mint = Callable[..., keys.Minted]


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_KEPT_SECONDS", 0.0)


def asked(client: FlaskClient) -> tuple[int, dict[str, Any]]:
    response = client.get("/readyz")
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, response.get_json()


def test_a_portal_that_works_is_ready(app: Flask, client: FlaskClient) -> None:
    checks = {"database": "ok", "limiter": "ok", "vault": "ok"}
    assert asked(client) == (200, {"ready": True, "checks": checks})


def test_a_database_that_is_away_makes_it_unready_until_it_is_back(
    app: Flask, client: FlaskClient, database_url: str, request: pytest.FixtureRequest
) -> None:
    if database_url.startswith("sqlite"):
        with db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE workspace RENAME TO elsewhere"))
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        postgres.stop()
    status, answer = asked(client)
    assert (status, answer["ready"], answer["checks"]["database"]) == (503, False, "does not answer")
    assert answer["checks"]["limiter"] == "ok"
    assert client.get("/healthz").status_code == 200
    if database_url.startswith("sqlite"):
        with db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO workspace"))
    else:
        postgres.start()
    assert asked(client)[0] == 200


def of_doctor() -> doctor.Finding:
    return dict(doctor.examine())["database"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_takes_no_writes_makes_it_unready(
    app: Flask, client: FlaskClient, postgres_url: str, mint: Mint
) -> None:
    """As one is after a failover, and whoever is still sent to it."""
    key = bearer(mint().secret)
    name = make_url(postgres_url).database
    for how, status, word in [("on", 503, "takes no writes"), ("off", 200, "ok")]:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET default_transaction_read_only = off"))
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = {how}"))
        # It holds for new connections.
        db.session.remove()
        db.engine.dispose()
        parts().quick.close()
        found = asked(client)
        assert (found[0], found[1]["checks"]["database"]) == (status, word)
        assert client.get("/v1/models", headers=key).status_code == status
        assert of_doctor() == doctor.Finding(status == 200, f"postgresql {word.replace('ok', 'answers')}")


@pytest.mark.embedded
class TestOnAFile:
    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """One that everybody may use, unlike those of tests."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o777)
        yield folder
        shutil.rmtree(folder)

    @pytest.fixture
    def database_url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/portal.db"

    @pytest.fixture
    def file(self, app: Flask, client: FlaskClient, folder: Path) -> Path:
        assert asked(client)[0] == 200
        return folder / "portal.db"

    def test_one_that_may_not_be_written_makes_it_unready(self, app: Flask, client: FlaskClient, file: Path) -> None:
        before = os.geteuid()
        file.chmod(0o444)
        if before == 0:
            # To root nothing is read-only.
            os.seteuid(NOBODY)
        try:
            status, answer = asked(client)
            found = of_doctor()
        finally:
            os.seteuid(before)
        assert (status, answer["checks"]["database"]) == (503, "takes no writes")
        assert found == doctor.Finding(False, "sqlite takes no writes")
        file.chmod(0o600)
        assert asked(client)[0] == 200
        assert of_doctor().good

    @pytest.mark.parametrize("how", ["removed", "replaced"])
    def test_one_that_is_another_by_now_makes_it_unready(self, client: FlaskClient, file: Path, how: str) -> None:
        """What is written goes on into the one that was opened, which nobody finds again."""
        aside = file.with_name("aside")
        file.rename(aside)
        if how == "replaced":
            shutil.copyfile(aside, file)
        status, answer = asked(client)
        assert (status, answer["checks"]["database"]) == (503, "is not the file that was opened")
        assert file.exists() == (how == "replaced")
        aside.replace(file)
        assert asked(client)[0] == 200

    def test_one_that_somebody_writes_to_is_ready(self, client: FlaskClient, file: Path) -> None:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as busy:
            busy.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            assert asked(client)[0] == 200
            assert of_doctor().good
            assert time.monotonic() - began < 2

    def test_asking_changes_nothing(self, client: FlaskClient, file: Path) -> None:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as witness:
            before = witness.execute("PRAGMA data_version").fetchone()
            assert asked(client)[0] == 200
            assert witness.execute("PRAGMA data_version").fetchone() == before


class TestWithoutItsNeighbours:
    @pytest.fixture
    def database_url(self, one_database_url: str) -> str:
        """One kind: it stays where it is."""
        return one_database_url

    @pytest.fixture
    def silent(self) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    @pytest.fixture
    def fallback(self) -> str | None:
        """What is done while a limiter hangs; None: there is one that works."""
        return None

    @pytest.fixture
    def environment(self, environment: dict[str, str], silent: int, fallback: str | None) -> dict[str, str]:
        if fallback is None:
            return environment
        away = f"redis://127.0.0.1:{silent}?socket_timeout=0.5"
        return environment | {"ARKA_RATELIMIT_STORAGE_URI": away, "ARKA_RATELIMIT_FALLBACK": fallback}

    @pytest.mark.parametrize("fallback", ["refuse"])
    def test_a_limiter_that_hangs_makes_it_unready_within_the_time_out(
        self, app: Flask, client: FlaskClient, mint: Mint, fallback: str
    ) -> None:
        began = time.monotonic()
        status, answer = asked(client)
        assert (status, answer["checks"]["database"]) == (503, "ok")
        assert answer["checks"]["limiter"].startswith("does not answer")
        assert time.monotonic() - began < 3.5
        refused = client.get("/v1/models", headers=bearer(mint().secret))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")

    @pytest.mark.parametrize("fallback", ["memory"])
    def test_a_limiter_that_may_count_in_memory_leaves_it_ready(
        self, app: Flask, client: FlaskClient, alice: Person, mint: Mint, fallback: str
    ) -> None:
        workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=2, actor=alice.actor)
        headers = bearer(mint().secret)
        assert [client.get("/v1/models", headers=headers).status_code for _ in range(3)] == [200, 200, 429]
        assert client.post("/sign-in", data={"email": "x@y.example", "password": "z"}).status_code < 500
        status, answer = asked(client)
        assert (status, answer["checks"]["limiter"]) == (200, "counts in memory")

    def test_a_vault_without_the_right_key_makes_it_unready_and_one_damaged_row_does_not(
        self, app: Flask, client: FlaskClient, alice: Person, charlie: Person
    ) -> None:
        for person in (alice, charlie):
            key = Secret("sk-canary-0123456789abcdef")
            provider_keys.save(person.workspace, "openai", key, actor=person.actor, check=False)
        damage = text("UPDATE provider_key SET sealed = 'v1.x.y.z' WHERE workspace_id = :id")
        with db.engine.begin() as connection:
            connection.execute(damage, {"id": alice.workspace_id})
        assert asked(client)[0] == 200
        with db.engine.begin() as connection:
            connection.execute(damage, {"id": charlie.workspace_id})
        status, answer = asked(client)
        assert (status, answer["checks"]["vault"]) == (503, "opens no provider key")

    def test_a_check_that_hangs_is_not_begun_again(
        self, app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go_on = [], threading.Event()

        def hang() -> Finding:
            begun.append(1)
            go_on.wait(30)
            return Finding(True)

        monkeypatch.setattr(readiness, "_SECONDS", 0.1)
        monkeypatch.setitem(readiness.CHECKS, "vault", hang)
        for _ in range(3):
            status, answer = asked(client)
            assert (status, answer["checks"]["vault"]) == (503, "does not answer in time")
        assert len(begun) == 1
        go_on.set()
        monkeypatch.setitem(readiness.CHECKS, "vault", lambda: Finding(True))
        monkeypatch.setattr(readiness, "_SECONDS", 2.0)
        assert wait_until(lambda: asked(client)[0] == 200, 10)

    def test_what_was_found_is_kept_for_a_moment(
        self, app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(readiness, "_KEPT_SECONDS", 60.0)
        asked_for = []

        def count() -> Finding:
            asked_for.append(1)
            return Finding(True)

        monkeypatch.setitem(readiness.CHECKS, "vault", count)
        for _ in range(5):
            assert asked(client)[0] == 200
        assert len(asked_for) == 1
