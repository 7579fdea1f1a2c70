"""A PostgreSQL that hangs, vanishes or is locked costs a caller seconds, never a thread; and it heals by itself."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from extensions import db
from models import Workspace, postgresql
from models.postgresql import unbounded
from models.quick import DatabaseUnavailable, Prepared, Quick
from services.keys import Minted
from services.parts import parts
from tests.neighbours.postgres import Postgres
from tests.people import Person, bearer

pytestmark = pytest.mark.waits

SECONDS = 10.0
_ONE = Prepared(select(Workspace.id))


@pytest.fixture
def database_url(through_proxy: str) -> str:
    return through_proxy


@pytest.fixture
def through_proxy(postgres_url: str, proxy: Proxy) -> str:
    return postgres_url.replace(f":{proxy.to}/", f":{proxy.port}/")


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    with contextlib.closing(Proxy(postgres.port)) as proxy:
        yield proxy


class Proxy:
    """Forwards TCP connections, until it is told to let everything vanish without a word."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.vanished = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := one.recv(65536):
                if not self.vanished.is_set():
                    other.sendall(part)
            if not self.vanished.is_set():
                other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            one.close()


def vanished(proxy: Proxy) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def away() -> Iterator[None]:
        proxy.vanished.set()
        yield
        proxy.vanished.clear()

    return away()


def locked(url: str) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def held() -> Iterator[None]:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE usage_record, api_key, api_key_secret IN ACCESS EXCLUSIVE MODE")
            yield

    return held()


@pytest.mark.parametrize("trouble", ["hangs", "vanishes", "is locked"])
def test_calls_get_503_within_ten_seconds_and_then_go_on(
    app: Flask, mint: Callable[..., Minted], postgres: Postgres, postgres_url: str, proxy: Proxy, trouble: str
) -> None:
    headers = bearer(mint().secret)
    statuses: list[int] = []

    def ask() -> None:
        # In a thread of its own, so without the test's app context.
        answer = FlaskClient(app, app.response_class).get("/v1/models", headers=headers)
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.get_json()["error"]["code"] == "service_unavailable"

    def ask_all(number: int) -> None:
        asking = [threading.Thread(target=ask) for _ in range(number)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(30)
            assert not thread.is_alive()

    ask_all(1)
    db.session.rollback()
    began = time.monotonic()
    troubles = {
        "hangs": postgres.hanging,
        "vanishes": lambda: vanished(proxy),
        "is locked": lambda: locked(postgres_url),
    }
    with troubles[trouble]():
        # More at once than there are connections.
        ask_all(20)
        took = time.monotonic() - began
    assert statuses == [200] + [503] * 20
    assert took < SECONDS + 2, f"{took:.1f} s"
    again = time.monotonic()
    ask_all(1)
    assert statuses[-1] == 200
    assert time.monotonic() - again < 2


def test_what_pages_read_is_bounded_as_well(app: Flask, alice: Person, postgres: Postgres) -> None:
    db.session.rollback()
    with postgres.hanging():
        began = time.monotonic()
        answer = app.test_client().get("/sign-in", headers={"Cookie": "portal=" + "x" * 60})
        assert time.monotonic() - began < postgresql.STATEMENT_SECONDS + 3
    assert answer.status_code in (200, 503)
    with pytest.raises(OperationalError) as raised:
        db.session.execute(text("SELECT pg_sleep(30)"))
    assert isinstance(raised.value.orig, psycopg.errors.QueryCanceled)


def test_a_statement_that_was_given_up_is_not_sent_a_second_time(app: Flask, postgres: Postgres) -> None:
    """It may have been carried out; and whoever waits has waited long enough."""
    quick = parts().quick
    quick.one(_ONE, {})
    with postgres.hanging():
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            quick.one(_ONE, {})
        assert time.monotonic() - began < postgresql.HOT_STATEMENT_SECONDS + 2
    assert quick.one(_ONE, {}) is None


def test_migrations_and_backups_may_take_their_time(app: Flask) -> None:
    with db.engine.connect() as connection, unbounded(connection):
        shown = connection.execute(text("SHOW statement_timeout")).scalar_one()
        assert shown == "0"
        assert connection.connection.driver_connection.longest_wait is None  # type: ignore[union-attr]
    with db.engine.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "10s"
        assert connection.connection.driver_connection.longest_wait is not None  # type: ignore[union-attr]


def test_what_the_address_says_wins(postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://") + "?options=-c%20statement_timeout%3D1234"
    quick = Quick(url)
    shown = quick.one(Prepared(select(func.current_setting("statement_timeout"))), {})
    assert shown == ["1234ms"]
    quick.close()


def test_the_server_gives_up_a_client_that_vanished(app: Flask) -> None:
    names = ("tcp_keepalives_idle", "idle_in_transaction_session_timeout")
    shown = parts().quick.one(Prepared(select(*(func.current_setting(name) for name in names))), {})
    assert shown == ["30", "1min"]
