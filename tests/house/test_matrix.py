"""Every route is asked by every kind of caller; the answers are those of the one table in ``matrix.py``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, insert, select, update
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from extensions import db
from models import AccessRequest, LoginSession, MailMessage, User
from models.base import now, transaction
from services import keys, rotation
from services.permissions import Role, Scope
from tests.house import matrix
from tests.house.matrix import ELSEWHERE, NO, OWN, SIGN_IN, YES, Entry
from tests.house.test_strangers import ROUTES, Things, dump, make_things, mint, path_of
from tests.neighbours.fake_provider import FakeProvider
from tests.pages.visitor import Visitor
from tests.people import Person, bearer, join, make_person

# Who has gone, or has gone with it, is led to the list of workspaces as well.
LEADS_ELSEWHERE = {"/workspace/leave", "/workspace/delete"}
People = dict[str, tuple[Visitor, str]]
KEYS = ("key", "disabled_key", "rotating_key", "deleted_key")
# Arguments that name no thing of a workspace.
OTHERS = {"name": "openai", "token": "none", "version": "0", "model_id": "gpt-4o"}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What is asked here is the same for every database."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_AUTH_FAILURES_PER_MINUTE": "10000",
    }


class State:
    """The database as it is now, to be put back after each act."""

    def __init__(self) -> None:
        db.session.rollback()
        self._tables = db.metadata.sorted_tables
        with db.engine.begin() as connection:
            self._kept = [[row._asdict() for row in connection.execute(select(table))] for table in self._tables]

    def put_back(self) -> None:
        db.session.remove()
        with db.engine.begin() as connection:
            for table in reversed(self._tables):
                connection.execute(delete(table))
            for table, rows in zip(self._tables, self._kept, strict=True):
                if rows:
                    connection.execute(insert(table), rows)


def test_every_route_has_a_row_that_its_guard_keeps(app: Flask) -> None:
    assert matrix.gaps(app) == []
    assert "GAP" not in matrix.printed(app)


def test_each_person_gets_what_the_table_says(app: Flask, alice: Person) -> None:
    people = callers(app, alice)
    dora = db.session.query(User).filter_by(email="developer@northwind.example").one()
    as_dora = replace(alice, email=dora.email, user_id=dora.id)
    things = make_things(app, alice)
    hers = replace(things, **own_keys(as_dora))
    for visitor, _ in people.values():
        visitor.open("/overview")
    point_at(alice, people)
    before = {name: rows for name, rows in dump().items() if name != "login_session"}
    assert list(wrongly_let_in(app, people, things)) == []
    assert {name: rows for name, rows in dump().items() if name != "login_session"} == before
    assert list(wrongly_refused(app, people, things, hers, State())) == []


def wrongly_let_in(app: Flask, people: People, things: Things) -> Iterator[tuple[str, ...]]:
    """Ask what the table refuses; yield every other answer."""
    for entry, person in itertools.product(matrix.entries(app), people):
        expected = entry.allowed(person)
        if expected not in (YES, OWN):
            found = verdict(entry, ask(*people[person], entry, things))
            if found != expected:
                yield entry.method, entry.rule, person, expected, found


def wrongly_refused(
    app: Flask, people: People, things: Things, hers: Things, state: State
) -> Iterator[tuple[str, ...]]:
    """Ask what the table allows, each time in the same state; yield every refusal. Others' keys are not one's own."""
    # What everybody may do signs out as well, and a browser keeps no cookie that it was told to drop.
    in_order = sorted(matrix.entries(app), key=lambda entry: entry.ability == matrix.ANYBODY)
    for entry, person in itertools.product(in_order, people):
        expected = entry.allowed(person)
        if expected not in (YES, OWN):
            continue
        only_own = expected == OWN and "<key_id>" in entry.rule
        found = verdict(entry, ask(*people[person], entry, hers if only_own else things))
        if entry.method != "GET":
            state.put_back()
        if found != YES:
            yield entry.method, entry.rule, person, expected, found
        if only_own and (others := verdict(entry, ask(*people[person], entry, things))) != NO:
            yield entry.method, entry.rule, person, "not another's", others


def test_each_key_gets_what_its_scopes_say(app: Flask, alice: Person) -> None:
    things = make_things(app, alice)
    owner = Visitor(app).sign_in(alice)
    state = State()
    wrong = []
    for method, rule, scope in matrix.endpoints(app):
        needed = Scope(scope) if ":" in scope else Scope.USAGE_READ
        query = {"scope": needed.value} if rule == "/v1/auth" else {}
        kinds, body = ROUTES.get((method, rule), ({}, {}))
        path = filled(rule, {name: getattr(things, kind) for name, kind in kinds.items()})
        sent: dict[str, Any] = {"query_string": query, "json": body if method not in ("GET", "DELETE") else None}
        narrow = mint(alice, "with it", scopes=[needed], preset=None, environment="test")
        others = mint(alice, "without it", scopes=[one for one in Scope if one != needed], preset=None)
        answers = {
            "no key": owner.one_request(method, path, **sent),
            "with": owner.one_request(method, path, headers=bearer(narrow.secret), **sent),
            "without": owner.one_request(method, path, headers=bearer(others.secret), **sent),
        }
        told = {name: (answer.status_code, code_of(answer)) for name, answer in answers.items()}
        if told["no key"] != (401, "authentication_required"):
            wrong.append((method, rule, "no key", told))
        if told["with"][0] == 401 or told["with"][1] == "insufficient_scope" or told["with"][0] >= 500:
            wrong.append((method, rule, "with", told))
        if scope != "any key" and told["without"] != (403, "insufficient_scope"):
            wrong.append((method, rule, "without", told))
        state.put_back()
    assert wrong == []


def callers(app: Flask, alice: Person) -> People:
    """Return a browser of each kind of person, with a token for its forms."""
    people = {Role.OWNER.value: alice}
    for role in (Role.ADMIN, Role.DEVELOPER, Role.VIEWER):
        people[role.value] = make_person(f"{role.value}@northwind.example")
        join(people[role.value], alice, role)
    people[matrix.STRANGER] = make_person("stranger@elsewhere.example")
    people[matrix.OUTSIDE_OPERATOR] = make_person("operator@elsewhere.example")
    with transaction() as session:
        session.execute(update(User).where(User.email == "operator@elsewhere.example").values(is_operator=True))
    found = {}
    for name, person in people.items():
        visitor = Visitor(app).sign_in(person)
        found[name] = (visitor, visitor.token())
    nobody = Visitor(app)
    found[matrix.SIGNED_OUT] = (nobody, dict(nobody.open("/sign-in").forms[0].fields)["csrf_token"])
    point_at(alice, found)
    return found


def own_keys(maker: Person) -> dict[str, str]:
    """Make the keys that routes name, as somebody's own; return their ids by kind."""
    made = {kind: mint(maker, f"{kind} of hers", scopes=["usage:read"], preset=None).key for kind in KEYS}
    keys.disable(maker.workspace, made["disabled_key"].id, actor=maker.actor)
    later = now() + timedelta(hours=9)
    rotation.rotate(maker.workspace, made["rotating_key"].id, actor=maker.actor, until=later)
    keys.delete(maker.workspace, made["deleted_key"].id, actor=maker.actor)
    return {kind: key.id for kind, key in made.items()}


def point_at(alice: Person, people: People) -> None:
    """Let every browser look at alice's workspace, also those whose person has no place in it."""
    with transaction() as session:
        session.execute(update(LoginSession).values(workspace_id=alice.workspace_id))


def ask(visitor: Visitor, token: str, entry: Entry, things: Things) -> TestResponse:
    kinds, body = ROUTES.get((entry.method, entry.rule), ({}, {}))
    named = {name: getattr(things, kind) for name, kind in kinds.items()}
    if entry.ability == matrix.OPERATOR:
        named = in_console(things)
    path = filled(entry.rule, named)
    data = {"csrf_token": token, **body} if entry.method == "POST" else None
    return visitor.one_request(entry.method, path, data=data)


def in_console(things: Things) -> dict[str, str]:
    """What an operator's routes name: everything there is."""
    request = db.session.get_one(AccessRequest, things.request)
    message = db.session.scalars(select(MailMessage.id).limit(1)).one()
    named = {"number": str(request.number), "message_id": message}
    return named | {"workspace_id": things.workspace, "user_id": things.member}


def filled(rule: str, arguments: dict[str, str]) -> str:
    return path_of(Rule(rule), {**OTHERS, **arguments})


def verdict(entry: Entry, answer: TestResponse) -> str:
    """Return what an answer means for whoever asked."""
    location = answer.headers.get("Location", "").partition("?")[0]
    if entry.ability != matrix.ANYBODY and answer.status_code in (401, 403):
        return NO
    if entry.ability == matrix.OPERATOR and answer.status_code == 404:
        # As if there were no such page.
        return NO
    if answer.status_code >= 500 and entry.rule != "/readyz":
        return str(answer.status_code)
    if entry.ability == matrix.ANYBODY:
        return YES
    if location == "/sign-in":
        return SIGN_IN
    if location == "/workspaces" and entry.ability != matrix.ACCOUNT and answer.status_code == 303:
        # Who has just left is told so by a message in the cookie; who had no place gets none.
        left = entry.rule in LEADS_ELSEWHERE and "Set-Cookie" in answer.headers
        return YES if left else ELSEWHERE
    return YES


def code_of(answer: TestResponse) -> str | None:
    given = answer.get_json(silent=True) or {}
    error = given.get("error") if isinstance(given, dict) else None
    return error.get("code") if isinstance(error, dict) else None
