"""Workspaces: another one, another name, and the end of everything in one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from extensions import db
from models import (
    AuditEvent,
    Invitation,
    KeyAddress,
    LoginSession,
    MailMessage,
    Membership,
    Notice,
    UsageRecord,
    User,
    WebhookEndpoint,
    Workspace,
)
from models.base import new_id, now, transaction
from services import custom_scopes, invitations, provider_keys, sessions, spending, workspace_end, workspaces
from services.errors import InvalidInput, NotFound, PermissionRefused
from services.gate import KeyFacts
from services.gateway import catalogue
from services.keys import Minted
from services.parts import parts
from services.permissions import Role
from services.secret import Secret
from tests.people import Person, bearer, join, make_person

Mint = Callable[..., Minted]


def rows_of(workspace_id: str) -> dict[str, int]:
    """Count the rows of the workspace in every table that says whose a row is."""
    db.session.rollback()
    counts = {}
    for name, table in db.metadata.tables.items():
        if "workspace_id" in table.c:
            query = select(func.count()).select_from(table).where(table.c.workspace_id == workspace_id)
            counts[name] = db.session.scalar(query) or 0
    return counts


def fill(host: Person, minted: Minted, client: FlaskClient) -> None:
    """Let something of many kinds come to be in a workspace."""
    client.get("/v1/models", headers=bearer(minted.secret))
    spending.set_limits(
        host.workspace, daily_nano_usd=10**9, monthly_nano_usd=None, allow_unknown_price=False, actor=host.actor
    )
    custom_scopes.define(host.workspace, "tasks:write", "Change tasks", actor=host.actor)
    provider_keys.save(host.workspace, "openai", Secret("sk-test-0123456789abcdef"), actor=host.actor, check=False)
    inviter = db.session.get_one(User, host.user_id)
    invitations.invite(host.workspace, "guest@else.example", "viewer", inviter=inviter, actor=host.actor)
    with transaction() as session:
        session.add(
            Notice(
                workspace_id=host.workspace_id, kind="test", subject_id=minted.key.id, occasion="now", created_at=now()
            )
        )
        session.add(KeyAddress(api_key_id=minted.key.id, address="203.0.113.1", first_seen_at=now()))
        session.add(
            WebhookEndpoint(
                id=new_id("we"),
                workspace_id=host.workspace_id,
                url="https://hooks.example",
                description="",
                events=[],
                created_by_name=host.email,
                created_at=now(),
            )
        )


def test_deleting_a_workspace_leaves_no_row_of_it(
    app: Flask, alice: Person, bob: Person, mint: Mint, client: FlaskClient
) -> None:
    minted = mint("Production Server")
    fill(alice, minted, client)
    bobs = db.session.get_one(User, bob.user_id)
    login_session = sessions.find(sessions.begin(bobs, methods=["password"], address=None, client=None))
    assert login_session is not None
    workspaces.look_at(login_session, alice.workspace_id)
    session_id = login_session.id
    before = rows_of(alice.workspace_id)
    filled = {"api_key", "audit_event", "custom_scope", "invitation", "membership", "notice", "provider_key"}
    assert {name for name in filled | {"usage_record", "webhook_endpoint", "mail_message"} if not before[name]} == set()
    admin = make_person("admin@northwind.example")
    join(admin, alice, Role.ADMIN)
    with transaction() as session:
        session.query(User).update({User.email_confirmed_at: now()})
    for person in (admin, bob):
        with pytest.raises(PermissionRefused):
            workspace_end.delete_workspace(alice.workspace_id, actor=person.actor)
    others = rows_of(bob.workspace_id)

    workspace_end.delete_workspace(alice.workspace_id, actor=alice.actor)

    assert {name: count for name, count in rows_of(alice.workspace_id).items() if count} == {}
    assert db.session.get(Workspace, alice.workspace_id) is None
    assert db.session.query(KeyAddress).count() == 0
    assert rows_of(bob.workspace_id) == {**others, "login_session": others["login_session"] + 1}
    assert db.session.get_one(LoginSession, session_id).workspace_id == bob.workspace_id
    told = db.session.query(MailMessage).filter_by(subject="alice was deleted")
    assert {letter.recipient for letter in told} == {bob.email, admin.email}
    with pytest.raises(NotFound):
        workspace_end.delete_workspace(alice.workspace_id, actor=alice.actor)
    unknown = parts().key_format.generate("secret", "test")
    answers = [client.get("/v1/models", headers=bearer(secret)) for secret in (minted.secret, unknown)]
    errors = [{**answer.get_json()["error"], "request_id": None} for answer in answers]
    assert errors[0] == errors[1]
    assert {answer.status_code for answer in answers} == {403}
    assert db.session.query(UsageRecord).filter_by(workspace_id=alice.workspace_id).count() == 0


def test_a_call_at_work_while_its_workspace_goes_ends_like_one_with_an_unknown_key(
    app: Flask, alice: Person, mint: Mint, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    minted, owner = mint("Production Server"), alice.actor

    def slow(key: KeyFacts) -> list[object]:
        workspace_end.delete_workspace(key.workspace_id, actor=owner)
        return []

    monkeypatch.setattr(catalogue, "models", slow)
    answer = client.get("/v1/models", headers=bearer(minted.secret))
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "invalid_api_key")


def test_another_workspace_and_another_name(app: Flask, alice: Person, bob: Person) -> None:
    owner = db.session.get_one(User, alice.user_id)
    second = workspaces.open_another("  Second  ", owner=owner, actor=alice.actor)
    assert (second.name, second.slug, second.plan) == ("Second", "second", "starter")
    for name in (
        "",
        " ",
        "x" * 61,
        "two\nlines",
        "Free money at https://else.example",
        "www.else.example",
        "a@b.example",
    ):
        with pytest.raises(InvalidInput):
            workspaces.open_another(name, owner=owner, actor=alice.actor)
        with pytest.raises(InvalidInput):
            workspaces.change(second, name=name, time_zone="UTC", actor=alice.actor)
    with pytest.raises(InvalidInput) as refusal:
        workspaces.change(second, name="Second", time_zone="Mars/Olympus", actor=alice.actor)
    assert list(refusal.value.fields) == ["time_zone"]
    workspaces.change(second, name="Lab", time_zone="Europe/Berlin", actor=alice.actor)
    workspaces.change(second, name="Lab", time_zone="Europe/Berlin", actor=alice.actor)
    assert (second.name, second.slug, second.time_zone) == ("Lab", "second", "Europe/Berlin")
    query = db.session.query(AuditEvent).filter_by(workspace_id=second.id, action="workspace:change")
    assert [event.details["to"] for event in query] == [{"name": "Lab", "time_zone": "Europe/Berlin"}]
    bobs = db.session.get_one(User, bob.user_id)
    login_session = sessions.find(sessions.begin(bobs, methods=["password"], address=None, client=None))
    assert login_session is not None
    with pytest.raises(NotFound):
        workspaces.look_at(login_session, second.id)
    assert db.session.query(Membership).filter_by(workspace_id=second.id).count() == 1
    assert db.session.query(Invitation).count() == 0
