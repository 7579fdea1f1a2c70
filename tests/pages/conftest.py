"""Fixtures of the page tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from flask import Flask
from werkzeug.serving import make_server

from models import UsageRecord
from models.base import new_id, now, transaction
from services.keys import Minted
from services.permissions import Role
from tests.neighbours.oidc_provider import OidcProvider, running_oidc_provider
from tests.pages.visitor import Visitor
from tests.people import Person, join, make_person


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    """Somebody who is not signed in."""
    return Visitor(app)


@pytest.fixture
def owner(app: Flask, alice: Person) -> Visitor:
    """Alice at her browser."""
    return Visitor(app).sign_in(alice)


@pytest.fixture
def viewer(app: Flask, alice: Person, bob: Person) -> Visitor:
    """Bob at his browser, looking at alice's workspace."""
    return Visitor(app).sign_in(bob).look_at(alice)


@pytest.fixture
def oidc() -> Iterator[OidcProvider]:
    """An identity provider."""
    with running_oidc_provider() as provider:
        yield provider


@pytest.fixture
def dora(app: Flask, alice: Person) -> Person:
    """A developer in alice's workspace, beside a workspace of her own."""
    person = make_person("dora@northwind.example")
    join(person, alice, Role.DEVELOPER)
    return person


@pytest.fixture
def developer(app: Flask, alice: Person, dora: Person) -> Visitor:
    """Dora at her browser, looking at alice's workspace."""
    return Visitor(app).sign_in(dora).look_at(alice)


@pytest.fixture
def use(app: Flask) -> Callable[..., None]:
    """Note calls with a key: ``use(minted, times=3, days_ago=1)``."""

    def note(minted: Minted, *, times: int = 1, days_ago: float = 0, address: str = "203.0.113.24") -> None:
        with transaction() as session:
            for _ in range(times):
                session.add(
                    UsageRecord(
                        request_id=new_id("req"),
                        workspace_id=minted.key.workspace_id,
                        api_key_id=minted.key.id,
                        secret_id=minted.key.secrets[0].id,
                        environment=minted.key.environment,
                        endpoint="/v1/chat/completions",
                        started_at=now() - timedelta(days=days_ago),
                        status=200,
                        streamed=False,
                        address=address,
                        client="tests/1.0",
                    )
                )

    return note


@pytest.fixture
def site(app: Flask) -> Iterator[str]:
    """The app under test on a real port, for a real browser; its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
