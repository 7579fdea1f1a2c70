"""The app under test and three people: alice owns a workspace, bob is a viewer in it, charlie belongs elsewhere."""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import BytecodeCache, FileSystemBytecodeCache
from werkzeug.test import TestResponse

import config
from app import create_app
from extensions import db
from models import Membership, User, Workspace
from services import accounts, keys, passwords, sign_in, workspaces
from services.actor import Actor
from services.parts import parts
from services.permissions import Role
from services.secret import Secret
from tests import api_shapes, statements, tables
from tests.neighbours.storage import KINDS

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Person:
    """Someone with an account. ``workspace_id`` is the workspace they were given at sign-up."""

    email: str
    user_id: str
    workspace_id: str
    slug: str
    password: str = PASSWORD

    @property
    def workspace(self) -> Workspace:
        return db.session.get_one(Workspace, self.workspace_id)

    @property
    def actor(self) -> Actor:
        return Actor(kind="user", name=self.email, id=self.user_id, address="127.0.0.1", client="tests")


class SeparateClient(FlaskClient):
    """Sends each request as a server would: in an application context of its own, not in the test's."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        try:
            response = contextvars.Context().run(super().open, *args, **kwargs)
        finally:
            # What the test reads next is what the request has committed.
            db.session.rollback()
        api_shapes.check(self.application, response)
        return response


@pytest.fixture
def environment(tmp_path: Path, database_url: str, limits_of_run: dict[str, str]) -> dict[str, str]:
    """The settings of the portal under test; a test may change them before it asks for ``app``."""
    return {
        "ARKA_INSTANCE_PATH": str(tmp_path / "instance"),
        "ARKA_DATABASE_URL": database_url,
        "ARKA_WORKERS": "2",
        **limits_of_run,
    }


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> BytecodeCache:
    """The templates as Jinja has compiled them for an earlier app; a portal under test serves a few pages only."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def app(environment: dict[str, str], sqlite_tables: Path, compiled_templates: BytecodeCache) -> Iterator[Flask]:
    url = environment["ARKA_DATABASE_URL"]
    assert url.partition(":")[0] in KINDS, "this run is on another database: take one_database_url for the address"
    tables.copy_file(url, sqlite_tables)
    with pytest.MonkeyPatch.context() as patch:
        # Nothing here calls a machine whose certificate the system's authorities have signed; to read them takes 35 ms.
        patch.setenv("SSL_CERT_FILE", os.devnull)
        app = create_app(config.load(environment))
    app.jinja_env.bytecode_cache = compiled_templates
    app.testing = True
    app.test_client_class = SeparateClient
    with app.app_context():
        statements.share(db.engine)
        tables.make_missing()
        yield app
        db.session.remove()
        db.engine.dispose()
        parts().quick.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def alice(app: Flask) -> Person:
    """Owner of a workspace on the Agency plan."""
    person = make_person("alice@northwind.example")
    workspaces.set_plan(person.workspace, "agency", requests_per_minute=None, actor=person.actor)
    return person


@pytest.fixture
def bob(app: Flask, alice: Person) -> Person:
    """Viewer in alice's workspace, beside a workspace of his own."""
    person = make_person("bob@northwind.example")
    join(person, alice, Role.VIEWER)
    return person


@pytest.fixture
def charlie(app: Flask) -> Person:
    """A stranger to alice, with an Agency workspace of his own."""
    person = make_person("charlie@elsewhere.example")
    workspaces.set_plan(person.workspace, "agency", requests_per_minute=None, actor=person.actor)
    return person


@pytest.fixture
def mint(alice: Person) -> Callable[..., keys.Minted]:
    """Make a key in alice's workspace: ``mint(scopes=[...], environment="live", ...)``."""

    def make(
        name: str = "",
        *,
        kind: str = "secret",
        environment: str = "test",
        scopes: list[str] | None = None,
        expires_at: datetime | None = None,
        owner: Person = alice,
    ) -> keys.Minted:
        name = name or f"key {len(keys.living(owner.workspace)) + 1}"
        return keys.mint(
            owner.workspace,
            actor=owner.actor,
            name=name,
            kind=kind,
            environment=environment,
            scopes=scopes,
            expires_at=expires_at,
        )

    return make


# Hashing is slow on purpose, and so is a look at how easily a password is guessed. All people here have the same one,
# so that one hash, made in full, serves them all.
_hash_of_password = functools.cache(functools.partial(passwords.hash_password, Secret(PASSWORD)))


def _no_fault_of_password(*_args: object, **_more: object) -> None:
    """Say what ``passwords.fault_of`` says of it."""


def make_person(email: str) -> Person:
    """Sign somebody up and return them."""
    password_hash = _hash_of_password()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "hash_password", lambda _: password_hash)
        patch.setattr(passwords, "fault_of", _no_fault_of_password)
        workspace = accounts.create_user(
            email, Secret(PASSWORD), is_operator=False, actor=Actor(kind="command", name="tests")
        )
    user = db.session.query(User).filter_by(email=email.lower()).one()
    return Person(email, user.id, workspace.id, workspace.slug)


def enter(email: str, password: Secret, *, address: str | None, client: str | None) -> Secret:
    """Sign somebody in who has no second factor; return the token of the session."""
    token = sign_in.with_password(email, password, remembered=False, address=address, client=client).session
    assert token is not None
    return token


def join(person: Person, host: Person, role: Role) -> None:
    """Make ``person`` a member of ``host``'s workspace."""
    found = db.session.get(Membership, (host.workspace_id, person.user_id))
    assert found is None
    user = db.session.get_one(User, person.user_id)
    workspaces.add_member(host.workspace, user, role, actor=host.actor)


def bearer(secret: Secret) -> dict[str, str]:
    """The header that presents a key."""
    return {"Authorization": f"Bearer {secret.reveal()}"}
