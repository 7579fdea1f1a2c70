"""Another workspace's things: on every route that names a thing they are as absent as what never was.

A new route that takes an argument, and a new query argument, have to be entered here before the tests pass.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from flask import Flask
from sqlalchemy import func, select, text, update
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from config import ROOT
from extensions import db
from models import AccessRequest, ExternalIdentity, Passkey, UsageRecord, User
from models.base import new_id, now, transaction
from services import (
    custom_scopes,
    external_identities,
    invitations,
    keys,
    provider_keys,
    rotation,
    sessions,
    webhook_deliveries,
    webhooks,
    workspaces,
)
from services.identity_claims import Claims
from services.parts import parts
from services.permissions import Role
from services.secret import Secret
from tests.neighbours.fake_provider import GOOD_KEY, FakeProvider
from tests.pages.visitor import Visitor
from tests.people import Person, bearer


@dataclass(frozen=True)
class Things:
    """One of each kind of thing that a workspace has, by its id."""

    key: str
    disabled_key: str
    rotating_key: str
    deleted_key: str
    secret: str
    key_name: str
    scope: str
    scope_name: str
    provider_key: str
    webhook: str
    delivery: str
    refused_call: str
    attempt: str
    workspace: str
    slug: str
    person: str
    passkey: str
    session: str
    identity: str
    member: str
    invitation: str
    request: str


_DELIVERY = {"endpoint_id": "webhook", "delivery_id": "delivery"}
# What each route that names a thing finds among one's own, with a body it takes: (method, rule) -> (kinds, body).
# Several arguments have a kind each.
ROUTES: dict[tuple[str, str], tuple[dict[str, str], dict[str, Any]]] = {
    ("GET", "/account/passkeys/<passkey_id>/delete"): ({"passkey_id": "passkey"}, {}),
    ("POST", "/account/passkeys/<passkey_id>/delete"): ({"passkey_id": "passkey"}, {}),
    ("GET", "/account/passkeys/<passkey_id>/rename"): ({"passkey_id": "passkey"}, {}),
    ("POST", "/account/passkeys/<passkey_id>/rename"): ({"passkey_id": "passkey"}, {"name": "Mine now"}),
    ("POST", "/account/identities/<identity_id>/remove"): ({"identity_id": "identity"}, {}),
    ("POST", "/account/sessions/<session_id>/end"): ({"session_id": "session"}, {}),
    ("GET", "/keys/<key_id>"): ({"key_id": "key"}, {}),
    ("GET", "/keys/<key_id>/delete"): ({"key_id": "key"}, {}),
    ("POST", "/keys/<key_id>/delete"): ({"key_id": "rotating_key"}, {}),
    ("GET", "/keys/<key_id>/deleted"): ({"key_id": "deleted_key"}, {}),
    ("GET", "/keys/<key_id>/disable"): ({"key_id": "key"}, {}),
    ("POST", "/keys/<key_id>/disable"): ({"key_id": "key"}, {}),
    ("GET", "/keys/<key_id>/edit"): ({"key_id": "key"}, {}),
    ("POST", "/keys/<key_id>/edit"): ({"key_id": "key"}, {"name": "Mine now", "expires": "never"}),
    ("POST", "/keys/<key_id>/enable"): ({"key_id": "disabled_key"}, {}),
    ("GET", "/keys/<key_id>/rotate"): ({"key_id": "key"}, {}),
    ("POST", "/keys/<key_id>/rotate"): ({"key_id": "key"}, {"overlap": "now"}),
    ("GET", "/keys/<key_id>/rotation"): ({"key_id": "rotating_key"}, {}),
    ("POST", "/keys/<key_id>/rotation"): ({"key_id": "rotating_key"}, {"overlap": "7d"}),
    ("POST", "/keys/<key_id>/rotation/finish"): ({"key_id": "rotating_key"}, {}),
    ("GET", "/keys/scopes/<scope_id>/remove"): ({"scope_id": "scope"}, {}),
    ("POST", "/keys/scopes/<scope_id>/remove"): ({"scope_id": "scope"}, {}),
    ("GET", "/team/members/<user_id>/remove"): ({"user_id": "member"}, {}),
    ("POST", "/team/members/<user_id>/remove"): ({"user_id": "member"}, {}),
    ("POST", "/team/members/<user_id>/role"): ({"user_id": "member"}, {"role": "viewer"}),
    ("POST", "/team/invited/<invitation_id>/resend"): ({"invitation_id": "invitation"}, {}),
    ("POST", "/team/invited/<invitation_id>/withdraw"): ({"invitation_id": "invitation"}, {}),
    ("POST", "/plan/request/<request_id>/withdraw"): ({"request_id": "request"}, {}),
    ("GET", "/webhooks/<endpoint_id>"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/webhooks/<endpoint_id>/test"): ({"endpoint_id": "webhook"}, {}),
    ("GET", "/webhooks/<endpoint_id>/edit"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/webhooks/<endpoint_id>/edit"): (
        {"endpoint_id": "webhook"},
        {"url": "https://hooks.example/", "description": "Mine now"},
    ),
    ("GET", "/webhooks/<endpoint_id>/rotate"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/webhooks/<endpoint_id>/rotate"): ({"endpoint_id": "webhook"}, {"overlap": "now"}),
    ("GET", "/webhooks/<endpoint_id>/disable"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/webhooks/<endpoint_id>/disable"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/webhooks/<endpoint_id>/enable"): ({"endpoint_id": "webhook"}, {}),
    ("GET", "/webhooks/<endpoint_id>/delete"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/webhooks/<endpoint_id>/delete"): ({"endpoint_id": "webhook"}, {}),
    ("GET", "/webhooks/<endpoint_id>/deliveries/<delivery_id>"): (_DELIVERY, {}),
    ("POST", "/webhooks/<endpoint_id>/deliveries/<delivery_id>/redeliver"): (_DELIVERY, {}),
    ("GET", "/v1/webhooks/<endpoint_id>"): ({"endpoint_id": "webhook"}, {}),
    ("PATCH", "/v1/webhooks/<endpoint_id>"): ({"endpoint_id": "webhook"}, {"description": "Mine too"}),
    ("DELETE", "/v1/webhooks/<endpoint_id>"): ({"endpoint_id": "webhook"}, {}),
    ("POST", "/v1/webhooks/<endpoint_id>/rotate-secret"): ({"endpoint_id": "webhook"}, {"overlap": "now"}),
    ("POST", "/v1/webhooks/<endpoint_id>/test"): ({"endpoint_id": "webhook"}, {}),
    ("GET", "/v1/webhooks/<endpoint_id>/deliveries"): ({"endpoint_id": "webhook"}, {}),
    ("GET", "/v1/webhooks/<endpoint_id>/deliveries/<delivery_id>"): (_DELIVERY, {}),
    ("POST", "/v1/webhooks/<endpoint_id>/deliveries/<delivery_id>/redeliver"): (_DELIVERY, {}),
    ("GET", "/v1/keys/<key_id>"): ({"key_id": "key"}, {}),
    ("PATCH", "/v1/keys/<key_id>"): ({"key_id": "key"}, {"name": "Mine too"}),
    ("DELETE", "/v1/keys/<key_id>"): ({"key_id": "key"}, {}),
    ("POST", "/v1/keys/<key_id>/disable"): ({"key_id": "key"}, {}),
    ("POST", "/v1/keys/<key_id>/enable"): ({"key_id": "disabled_key"}, {}),
    ("POST", "/v1/keys/<key_id>/rotate"): ({"key_id": "key"}, {"overlap": "now"}),
    ("POST", "/v1/keys/<key_id>/rotation/finish"): ({"key_id": "rotating_key"}, {}),
}
# What is named besides the address: (method, path, name) -> the kind it finds among one's own. A filter finds nothing
# for a stranger's thing, which is an answer.
FILTERS = {"key", "who", "about", "actor", "object"}
FIELDS: dict[tuple[str, str, str], str] = {
    ("GET", "/keys/refusals", "request_id"): "refused_call",
    ("GET", "/audit", "about"): "key",
    ("GET", "/audit", "who"): "person",
    ("GET", "/audit.csv", "about"): "key",
    ("GET", "/audit.json", "who"): "person",
    ("GET", "/v1/audit", "actor"): "person",
    ("GET", "/v1/audit", "object"): "key",
    ("GET", "/usage", "key"): "key",
    ("GET", "/usage.csv", "key"): "key",
    ("GET", "/v1/keys", "cursor"): "key",
    ("GET", "/v1/members", "cursor"): "member",
    ("GET", "/v1/webhooks", "cursor"): "webhook",
    ("GET", "/v1/usage", "key"): "key",
    ("GET", "/v1/usage/calls", "key"): "key",
    ("POST", "/workspaces", "workspace"): "workspace",
}
PROVIDER_ROUTES = {
    "/keys/providers/<name>/update",
    "/keys/providers/<name>/test",
    "/keys/providers/<name>/delete",
    "/v1/providers/<name>",
    "/v1/providers/<name>/test",
}
MAILED_LINKS = ("/confirm/<token>", "/reset/<token>", "/email/<token>", "/email/undo/<token>")
NAME_NO_THING = {
    "/assets/<version>/<name>": "a file that everybody may read",
    **dict.fromkeys(MAILED_LINKS, "a secret that was mailed, tested with the accounts"),
    "/account/identities/accept/<token>": "a secret of one browser, tested with the identity provider",
    "/setup/<token>": "a secret of the operator's, tested with the set-up",
    "/invitations/<token>": "a secret of whoever is invited, tested with the invitations",
    "/invitations/<token>/account": "a secret of whoever is invited, tested with the invitations",
    "/invitations/<token>/sign-out": "a secret of whoever is invited, tested with the invitations",
    "/v1/models/<path:model_id>": "a model of the providers",
    **dict.fromkeys(PROVIDER_ROUTES, "a provider that the operator offers to everybody"),
}
WORDS = {
    "q",
    "status",
    "page",
    "plan",
    "limit",
    "next",
    "scope",
    "email",
    "group_by",
    "model",
    "provider",
    "role",
    "action",
}

_CHANGING = re.compile(r"req_[0-9a-f]{24}|name=\"csrf_token\"[^>]*")


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What is asked here is the same for every database."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    """A provider to list models of, so that every page and list can be opened."""
    return environment | {"ARKA_OPENAI_BASE_URL": provider.openai_base_url}


class Asker:
    """Alice, at her browser and with a key that may do everything."""

    def __init__(self, app: Flask, alice: Person) -> None:
        self.visitor = Visitor(app).sign_in(alice)
        self.token = self.visitor.token()
        minted = mint(alice, "Asker")
        self.key_id, self.headers = minted.key.id, bearer(minted.secret)

    def ask(self, method: str, path: str, body: dict[str, Any], **query: str) -> TestResponse:
        if path.startswith("/v1/"):
            sent: dict[str, Any] = {
                "headers": self.headers,
                "json": body if method in ("POST", "PATCH", "PUT") else None,
            }
        else:
            sent = {"data": {"csrf_token": self.token, **body} if method == "POST" else None}
        return self.visitor.one_request(method, path, query_string=query, **sent)

    def ask_for(self, field: tuple[str, str, str], thing: str) -> TestResponse:
        """Ask with a thing named in a field."""
        method, path, name = field
        if name == "cursor":
            thing = base64.urlsafe_b64encode(thing.encode()).decode().rstrip("=")
        if method == "POST":
            return self.ask(method, path, {name: thing})
        return self.ask(method, path, {}, **{name: thing})


@pytest.fixture
def asker(app: Flask, alice: Person) -> Asker:
    # More is asked here in a minute than the plan gives.
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=1_000_000, actor=alice.actor)
    return Asker(app, alice)


def mint(owner: Person, name: str, **more: Any) -> keys.Minted:
    settings = {"kind": "secret", "environment": "live", "preset": "full", **more}
    return keys.mint(owner.workspace, actor=owner.actor, name=name, **settings)


def make_things(app: Flask, owner: Person) -> Things:
    """Fill a workspace. May be done again and again."""
    workspace, actor, client, mark = owner.workspace, owner.actor, app.test_client(), new_id("x")[-8:].lower()
    key = mint(owner, f"Server {mark}", scopes=["usage:read"], preset=None)
    others = {kind: mint(owner, f"{kind} {mark}") for kind in ("disabled_key", "rotating_key", "deleted_key")}
    keys.disable(workspace, others["disabled_key"].key.id, actor=actor)
    rotation.rotate(workspace, others["rotating_key"].key.id, actor=actor, until=now() + timedelta(hours=9))
    keys.delete(workspace, others["deleted_key"].key.id, actor=actor)
    scope = custom_scopes.define(workspace, f"tasks:x{mark}", "Change tasks", actor=actor)
    provider_key = provider_keys.save(workspace, "openai", Secret(GOOD_KEY), actor=actor, check=False)
    for old in webhooks.of_workspace(workspace)[webhooks.MOST_ENDPOINTS - 2 :]:
        webhooks.delete(workspace, old.id, actor=actor)
    webhook = webhooks.create(workspace, actor=actor, url="https://hooks.example/", description=f"Hook {mark}").endpoint
    delivery = webhook_deliveries.send_test(workspace, webhook.id)
    with transaction():
        delivery.failed_at = now()
    calls = [
        client.get("/v1/models", headers=bearer(secret)).headers["X-Request-Id"]
        for secret in (key.secret, others["deleted_key"].secret)
    ]
    return Things(
        key=key.key.id,
        **{kind: minted.key.id for kind, minted in others.items()},
        secret=key.key.secrets[0].id,
        key_name=key.key.name,
        scope=scope.id,
        scope_name=scope.name,
        provider_key=provider_key.id,
        webhook=webhook.id,
        delivery=delivery.id,
        refused_call=calls[0],
        attempt=calls[1],
        workspace=owner.workspace_id,
        slug=owner.slug,
        person=owner.user_id,
        passkey=make_passkey(owner, mark),
        session=begin_session(owner),
        identity=connect_identity(owner),
        member=make_member(owner, mark),
        invitation=pending_invitation(owner, mark),
        request=ask_for_a_plan(owner),
    )


def make_passkey(owner: Person, mark: str) -> str:
    with transaction() as session:
        passkey = Passkey(
            id=new_id("pk"),
            user_id=owner.user_id,
            credential_id=mark.encode(),
            public_key=b"none",
            sign_count=0,
            backed_up=False,
            name=f"Passkey {mark}",
            created_at=now(),
        )
        session.add(passkey)
    return passkey.id


def begin_session(owner: Person) -> str:
    user = db.session.get_one(User, owner.user_id)
    found = sessions.find(sessions.begin(user, methods=["password"], address=None, client=None))
    assert found is not None
    return found.id


def connect_identity(owner: Person) -> str:
    subject = new_id("sub")
    claims = Claims("https://id.example", subject, None)
    external_identities.connect(db.session.get_one(User, owner.user_id), claims, owner.actor)
    return db.session.scalars(select(ExternalIdentity.id).where(ExternalIdentity.subject == subject)).one()


def pending_invitation(owner: Person, mark: str) -> str:
    """Return an open invitation, a new one if there is none: only so many are sent in an hour."""
    found = invitations.pending(owner.workspace)
    if found:
        return found[0].id
    inviter, guest = db.session.get_one(User, owner.user_id), f"guest-{mark}@else.example"
    return invitations.invite(owner.workspace, guest, "viewer", inviter=inviter, actor=owner.actor).id


def make_member(host: Person, mark: str) -> str:
    """Add a member who never signs in; return their id."""
    with transaction() as session:
        user = User(
            id=new_id("usr"), email=f"{mark}@team.example", password_hash="", is_operator=False, created_at=now()
        )
        session.add(user)
        session.flush()
        workspaces.add_member(host.workspace, user, Role.DEVELOPER, actor=host.actor)
        return user.id


def ask_for_a_plan(owner: Person) -> str:
    """Put a request into the queue in place of the open one; nobody counts how many in a day."""
    with transaction() as session:
        session.execute(
            update(AccessRequest)
            .where(AccessRequest.workspace_id == owner.workspace_id, AccessRequest.state == "open")
            .values(state="withdrawn", decided_at=now(), decided_by_name=owner.email)
        )
        number = 1 + (session.scalar(select(func.count()).select_from(AccessRequest)) or 0)
        request_id = new_id("ask")
        session.add(
            AccessRequest(
                id=request_id, number=number, workspace_id=owner.workspace_id, plan="enterprise", use="More",
                volume="More than 1,000", reply_to=owner.email, asked_by_name=owner.email, state="open",
                created_at=now(),
            )
        )  # fmt: skip
    return request_id


def ids_of(things: Things) -> dict[str, str]:
    return {field.name: getattr(things, field.name) for field in fields(things)}


def nobodys(thing: str) -> str:
    """An id of the same form that nothing has."""
    prefix, _, rest = thing.partition("_")
    return f"{prefix}_{'0' * len(rest)}" if rest else "0" * len(thing)


def arguments_of(rule: Rule) -> set[str]:
    """The arguments that come from the address."""
    return set(rule.arguments) - set(rule.defaults or ())


def naming_routes(app: Flask) -> Iterator[tuple[str, Rule]]:
    """Every route that takes an argument which may name a thing, with each of its methods."""
    for rule in app.url_map.iter_rules():
        # The operator's console is for operators, whose things everybody's are: tests/pages/test_operator.py.
        if arguments_of(rule) and rule.rule not in NAME_NO_THING and not rule.endpoint.startswith("operator."):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield method, rule


def path_of(rule: Rule, arguments: dict[str, str]) -> str:
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: arguments[match[1]], rule.rule)


def said(response: TestResponse, *things: str) -> tuple[int, str]:
    """What an answer says, without what is new in each and without the id that was asked for."""
    body = _CHANGING.sub("", response.get_data(as_text=True))
    for thing in things:
        body = body.replace(thing, "...").replace(quote(thing), "...").replace(quote_plus(thing), "...")
    return response.status_code, body


def dump() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but for when a browser was last seen."""
    return {
        name: sorted(
            (
                tuple(value for column, value in row.items() if (name, column) != ("login_session", "last_seen_at"))
                for row in db.session.execute(text(f'SELECT * FROM "{name}"')).mappings()
            ),
            key=repr,
        )
        for name in db.metadata.tables
    }


Asked = tuple[tuple[str, ...], str, TestResponse, TestResponse]


def asked_by_address(app: Flask, asker: Asker, own: Things, foreign: Things) -> Iterator[Asked]:
    """Put each foreign thing into each argument of each route; yield the answer, and that for nobody's thing."""
    for method, rule in naming_routes(app):
        kinds, body = ROUTES[method, rule.rule]
        right = {name: getattr(own, kind) for name, kind in kinds.items()}
        for name in kinds:
            for kind, thing in ids_of(foreign).items():
                path, none = (path_of(rule, {**right, name: given}) for given in (thing, nobodys(thing)))
                for asked in (method, "HEAD") if method == "GET" else (method,):
                    answers = asker.ask(asked, path, body), asker.ask(asked, none, body)
                    assert answers[1].status_code == 404, (asked, none)
                    yield (asked, rule.rule, name, kind), thing, *answers


def asked_by_field(asker: Asker, foreign: Things) -> Iterator[Asked]:
    for field in FIELDS:
        for kind, thing in ids_of(foreign).items():
            yield (*field, kind), thing, asker.ask_for(field, thing), asker.ask_for(field, nobodys(thing))


def test_every_route_that_names_a_thing_is_known_here(app: Flask) -> None:
    found = {(method, rule.rule): arguments_of(rule) for method, rule in naming_routes(app)}
    known = {route: set(kinds) for route, (kinds, _) in ROUTES.items()}
    assert found == known, "enter the route in ROUTES, or say in NAME_NO_THING why its argument names no thing"
    assert all(kind in Things.__dataclass_fields__ for kinds, _ in ROUTES.values() for kind in kinds.values())


def test_every_argument_of_a_query_is_known_here() -> None:
    read = {
        name
        for path in ROOT.glob("blueprints/**/*.py")
        for name in re.findall(r"request\.(?:args|form|values)(?:\.get(?:list)?\(|\[)\"(\w+)\"", path.read_text())
    }
    # Usage and the audit log read their filters by a loop.
    assert read | {"key", "who", "about", "actor", "action", "object"} == WORDS | {name for _, _, name in FIELDS}, (
        "enter it in FIELDS if it names a thing, else in WORDS"
    )


# Some two thousand requests, and others may share the machine.
@pytest.mark.timeout(400)
def test_a_strangers_things_are_as_absent_as_what_never_was(
    app: Flask, asker: Asker, alice: Person, charlie: Person
) -> None:
    own, foreign = make_things(app, alice), make_things(app, charlie)
    assert set(ids_of(own).values()).isdisjoint(ids_of(foreign).values())
    before = dump()
    wrong = [
        (*asked, answer.status_code, expected.status_code)
        for asked, thing, answer, expected in [
            *asked_by_address(app, asker, own, foreign),
            *asked_by_field(asker, foreign),
        ]
        if expected.status_code not in ((200,) if asked[2] in FILTERS else (400, 404))
        or said(answer, thing) != said(expected, nobodys(thing))
    ]
    assert wrong == []
    after = dump()
    # PostgreSQL gives JSON back as what it holds, which no set can hold.
    kept = {repr(row) for row in after["usage_record"] if asker.key_id not in row}
    assert kept == set(map(repr, before.pop("usage_record")))
    del after["usage_record"]
    # When a session was last seen may have been noted meanwhile.
    assert {row[0] for row in after.pop("login_session")} == {row[0] for row in before.pop("login_session")}
    assert after == before


# Some two thousand requests, and others may share the machine.
@pytest.mark.timeout(400)
def test_ones_own_things_are_found_by_the_same_requests(app: Flask, asker: Asker, alice: Person) -> None:
    """Or the test above would prove nothing."""
    wrong = []
    for method, rule in naming_routes(app):
        kinds, body = ROUTES[method, rule.rule]
        own = make_things(app, alice)
        path = path_of(rule, {name: getattr(own, kind) for name, kind in kinds.items()})
        status = asker.ask(method, path, body).status_code
        if status >= 400:
            wrong.append((method, rule.rule, status))
    for field, kind in FIELDS.items():
        status = asker.ask_for(field, getattr(make_things(app, alice), kind)).status_code
        if status >= 400:
            wrong.append((*field, status))
    assert wrong == []


def test_a_strangers_provider_key_is_neither_seen_nor_touched(
    app: Flask, asker: Asker, alice: Person, charlie: Person
) -> None:
    """The name of a provider says nothing; whose key is meant is the workspace's matter."""
    make_things(app, charlie)
    before = dump()["provider_key"]
    rules = {rule.rule: rule for rule in app.url_map.iter_rules() if rule.rule in PROVIDER_ROUTES}
    assert set(rules) == PROVIDER_ROUTES
    for path, rule in rules.items():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS", "PUT"}):
            assert asker.ask(method, path.replace("<name>", "openai"), {"key": GOOD_KEY}).status_code == 404
    assert dump()["provider_key"] == before
    assert asker.ask("PUT", "/v1/providers/openai", {"key": GOOD_KEY, "verify": False}).status_code == 201
    assert set(before) <= set(dump()["provider_key"])
    assert asker.ask("DELETE", "/v1/providers/openai", {}).status_code == 200
    assert dump()["provider_key"] == before


def test_a_place_in_a_strangers_list_of_calls_is_no_place(app: Flask, asker: Asker, charlie: Person) -> None:
    foreign = make_things(app, charlie)
    row = db.session.scalars(select(UsageRecord.id).where(UsageRecord.request_id == foreign.refused_call)).one()
    answers = []
    for number in (row, row + 1_000_000):
        cursor = base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")
        answers.append(said(asker.ask("GET", "/v1/usage/calls", {}, cursor=cursor)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400


def test_no_list_shows_a_strangers_things(app: Flask, asker: Asker, alice: Person, charlie: Person) -> None:
    own, foreign = make_things(app, alice), make_things(app, charlie)
    shown = ""
    for rule in app.url_map.iter_rules():
        if not rule.arguments and "GET" in (rule.methods or set()):
            shown += asker.ask("GET", rule.rule, {}).get_data(as_text=True)
    assert own.key in shown
    assert own.key_name in shown
    for kind, thing in ids_of(foreign).items():
        assert thing not in shown, kind
    assert charlie.email not in shown


def test_a_question_about_a_strangers_key_tells_and_changes_nothing(app: Flask, asker: Asker, charlie: Person) -> None:
    living, deleted, unknown = mint(charlie, "living"), mint(charlie, "deleted"), unknown_key()
    keys.delete(charlie.workspace, deleted.key.id, actor=charlie.actor)
    before = dump()
    answers = [
        said(asker.ask("POST", "/v1/keys/verify", {"key": key}))
        for key in (living.secret.reveal(), deleted.secret.reveal(), unknown)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert '"valid":false' in answers[0][1]
    after = dump()
    assert {row for row in after.pop("usage_record") if asker.key_id not in row} == set(before.pop("usage_record"))
    assert after == before
    assert db.session.query(UsageRecord).filter_by(workspace_id=charlie.workspace_id).count() == 0


def unknown_key() -> str:
    return parts().key_format.generate("secret", "live").reveal()
