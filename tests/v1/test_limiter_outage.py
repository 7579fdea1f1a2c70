"""The store of rate limits goes away and comes back: what ``/v1`` and pages answer, and what log and metrics tell."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from services import keys, metrics
from services.parts import install, parts
from services.rate_limits import RateLimits, StoreUnavailable, storage_from_uri
from services.tasks import TASKS
from tests.neighbours.processes import wait_until
from tests.neighbours.storage import GROWN
from tests.neighbours.valkey import Valkey
from tests.people import bearer
from tests.services.test_metrics import numbers_in

Mint = Callable[..., keys.Minted]
REFUSED = "requests are refused that cannot be counted"
IN_MEMORY = "rate limits are counted in the memory of this process"
BACK = "rate limits are counted in their storage again"


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """Nothing here is another on another database."""
    return one_database_url


@pytest.fixture(params=["valkey"] if GROWN else ["sqlite", "valkey"])
def store(request: pytest.FixtureRequest) -> Valkey | None:
    """What counts; None stands for the SQLite file."""
    if request.param == "sqlite":
        return None
    request.getfixturevalue("empty_redis_url")
    valkey: Valkey = request.getfixturevalue("valkey")
    return valkey


@pytest.fixture(params=["refuse", "memory"])
def fallback(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def environment(
    environment: dict[str, str], store: Valkey | None, fallback: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    monkeypatch.setattr("services.rate_limits._FIRST_PAUSE_SECONDS", 0.2)
    own = {} if store is None else {"ARKA_RATELIMIT_STORAGE_URI": store.url.replace("redis", "valkey")}
    return environment | own | {"ARKA_RATELIMIT_FALLBACK": fallback}


@contextlib.contextmanager
def away(app: Flask, store: Valkey | None) -> Iterator[None]:
    """Take the store away for the length of a ``with`` block."""
    if store is not None:
        with store.outage():
            yield
        return
    file = Path(app.instance_path, "limits.db")
    parts().limits.is_up()
    # Its log goes with it: nobody else has it open.
    parts().limits._storage.close()  # type: ignore[attr-defined]
    kept = file.rename(file.with_suffix(".kept"))
    file.mkdir()
    yield
    file.rmdir()
    kept.rename(file)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """How often each of our sentences was in the log since it was last looked at."""
    log = capsys.readouterr().err
    return {sentence: count for sentence in (REFUSED, IN_MEMORY, BACK) if (count := log.count(sentence))}


def test_pages_and_v1_are_refused_or_counted_in_memory_and_recover_by_themselves(
    app: Flask,
    client: FlaskClient,
    mint: Mint,
    store: Valkey | None,
    fallback: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    headers = bearer(mint().secret)
    statuses = {"refuse": (503, 503), "memory": (200, 422)}[fallback]

    def ask() -> tuple[int, int]:
        page = client.post("/sign-in", data={"csrf_token": token})
        answer = client.get("/v1/models", headers=headers)
        for response in (page, answer):
            assert (response.status_code == 503) == ("Retry-After" in response.headers)
        return answer.status_code, page.status_code

    token = _token(client)
    assert ask() == (200, 422)
    capsys.readouterr()
    failures_before = numbers_in(metrics.text()).get("arka_limiter_store_failures_total", 0)
    with away(app, store):
        assert [ask() for _ in range(3)] == [statuses] * 3
        numbers = numbers_in(metrics.text())
        assert numbers["arka_limiter_in_memory"] == (fallback == "memory")
        assert numbers["arka_limiter_store_failures_total"] > failures_before
        assert told(capsys) == {REFUSED if fallback == "refuse" else IN_MEMORY: 1}
    # In memory, a request tries the store now and then.
    assert wait_until(lambda: client.get("/v1/models", headers=headers).status_code == 200 and _in_store(), 5, 0.05)
    assert [ask() for _ in range(2)] == [(200, 422)] * 2
    assert told(capsys) == {BACK: 1}


def test_an_outage_and_its_end_are_noticed_while_nobody_calls(
    app: Flask,
    client: FlaskClient,
    store: Valkey | None,
    fallback: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a background task of each process."""
    monkeypatch.setattr("services.readiness._KEPT_SECONDS", 0.0)
    # Another test may have ended during an outage.
    metrics.LIMITER_AWAY.set(0)
    metrics.LIMITER_IN_MEMORY.set(0)

    def looked() -> tuple[float, float, str]:
        (task,) = [task for task in TASKS if task.name == "look at the limiter"]
        assert not task.once_per_fleet
        task.run()
        numbers = numbers_in(metrics.text())
        limiter = client.get("/readyz").get_json()["checks"]["limiter"]
        return numbers["arka_limiter_away"], numbers["arka_limiter_in_memory"], limiter

    assert looked() == (0, 0, "ok")
    capsys.readouterr()
    with away(app, store):
        assert looked() == {"refuse": (1, 0, "does not answer"), "memory": (1, 1, "counts in memory")}[fallback]
        assert told(capsys) == {REFUSED if fallback == "refuse" else IN_MEMORY: 1}
    assert wait_until(lambda: looked() == (0, 0, "ok"), 5, 0.05)
    assert told(capsys) == {BACK: 1}


@pytest.mark.parametrize("fallback", ["memory"], indirect=True)
def test_in_memory_the_limits_of_pages_hold(
    app: Flask, client: FlaskClient, store: Valkey | None, fallback: str
) -> None:
    token = _token(client)
    with away(app, store):
        values = {"csrf_token": token, "email": "somebody@else.example", "password": "not the one"}
        statuses = [client.post("/sign-in", data=values).status_code for _ in range(12)]
    assert 500 not in statuses
    assert (statuses.count(429), statuses[-1]) == (2, 429)


@pytest.mark.parametrize("fallback", ["refuse"], indirect=True)
@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_store_that_goes_away_while_a_page_is_refused_does_not_make_it_an_error(
    app: Flask, client: FlaskClient, store: None, fallback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = _token(client)
    values = {"csrf_token": token, "email": "somebody@else.example", "password": "not the one"}
    for _ in range(10):
        client.post("/sign-in", data=values)

    def gone(*_: Any) -> None:
        raise StoreUnavailable

    # The page asks when the next try is possible, after it was refused.
    monkeypatch.setattr(parts().limits.__class__, "window", gone)
    refused = client.post("/sign-in", data=values)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")


def _in_store() -> bool:
    return not parts().limits._outage.lasts


def _token(client: FlaskClient) -> str:
    page = client.get("/sign-in").get_data(as_text=True)
    return page.split('name="csrf_token"')[1].split('value="')[1].split('"')[0]


HANGS_SECONDS = 0.4


@pytest.fixture
def hanging_uri(tmp_path: Path, store: Valkey | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that takes a request and says nothing: a locked file, or a server that sleeps."""
    monkeypatch.setattr("services.rate_limits._FIRST_PAUSE_SECONDS", 1.0)
    if store is None:
        file = tmp_path / "held.db"
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("PRAGMA journal_mode = WAL")
            holder.execute("BEGIN EXCLUSIVE")
            yield f"sqlite:///{file}?timeout={HANGS_SECONDS}"
        return
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}/0?socket_timeout={HANGS_SECONDS}"


def test_calls_do_not_wait_one_behind_the_other_for_a_store_that_hangs(
    app: Flask, mint: Mint, fallback: str, hanging_uri: str
) -> None:
    limits = RateLimits(storage_from_uri(hanging_uri), fallback=fallback == "memory")
    install(app.extensions, dataclasses.replace(parts(), limits=limits))
    headers, answers = bearer(mint().secret), []

    def call() -> None:
        with app.app_context():
            answers.append(app.test_client().get("/v1/models", headers=headers))

    began = time.monotonic()
    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - began < 6 * HANGS_SECONDS
    assert [answer.status_code for answer in answers] == [200 if fallback == "memory" else 503] * 12
    if fallback == "refuse":
        assert all("Retry-After" in answer.headers for answer in answers)
