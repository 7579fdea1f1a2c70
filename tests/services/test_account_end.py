"""The end of an account: what goes with it, what stays with the others, and what is in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import ObjectDeletedError

from blueprints.errors import as_portal_error
from extensions import db
from models import (
    ApiKey,
    AuditEvent,
    ExternalIdentity,
    MailMessage,
    Membership,
    RecoveryCode,
    User,
    Workspace,
)
from models.base import new_id, now, transaction
from services import account_end, accounts, audit_chain, keys, members, sign_in, workspaces
from services.errors import InvalidInput, NotFound, PortalError, WrongCredentials
from services.keys import Minted
from services.permissions import Role
from services.secret import Secret
from tests.factors import add_app, add_passkey
from tests.people import PASSWORD, Person, enter, join, make_person

Mint = Callable[..., Minted]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Where there are passkeys."""
    return environment | {"ARKA_PUBLIC_URL": "http://localhost:5000"}


@pytest.fixture
def dora(app: Flask, alice: Person) -> Person:
    """A developer in alice's workspace, beside one of her own."""
    person = make_person("dora@northwind.example")
    join(person, alice, Role.DEVELOPER)
    return person


def end(person: Person, **more: object) -> None:
    """Delete the account as its page would: with what it has told."""
    user = db.session.get_one(User, person.user_id)
    found = account_end.consequences(user)
    usual = {shared.workspace.id: None for shared in found.shared if shared.keys}
    asked = {"seen": {workspace.id for workspace in found.alone}, "heirs": usual, **more}
    account_end.delete_account(person.user_id, actor=person.actor, **asked)  # type: ignore[arg-type]
    db.session.rollback()


def exists(person: Person) -> bool:
    db.session.rollback()
    return db.session.get(User, person.user_id) is not None


def log_of(host: Person) -> list[tuple[str, str, str | None]]:
    query = db.session.query(AuditEvent).filter_by(workspace_id=host.workspace_id).order_by(AuditEvent.number)
    return [(event.action, event.actor_name, event.object_name) for event in query]


def tables_with(text: str) -> set[str]:
    """Return the tables with a row that holds the text anywhere."""
    db.session.rollback()
    tables = db.metadata.tables
    return {name for name in tables if any(text in repr(row) for row in db.session.execute(select(tables[name])))}


def test_nothing_of_the_person_is_left_but_what_the_logs_of_others_say(
    app: Flask, alice: Person, dora: Person, mint: Mint
) -> None:
    minted = keys.mint(alice.workspace, actor=dora.actor, name="Doras", kind="secret", environment="test")
    assert minted.key.created_by_id == dora.user_id
    enter(dora.email, Secret(PASSWORD), address="203.0.113.9", client="Firefox")
    add_app(dora)
    add_passkey(dora)
    with transaction() as session:
        session.add(
            ExternalIdentity(
                id=new_id("ext"), user_id=dora.user_id, issuer="https://id.example", subject="d", created_at=now()
            )
        )
    assert {"login_session", "totp_secret", "passkey", "external_identity"} < tables_with(dora.user_id)
    before = log_of(alice)
    end(dora, heirs={alice.workspace_id: alice.user_id})
    assert not exists(dora)
    assert db.session.get(Workspace, dora.workspace_id) is None
    # The id of the person, in whatever column, and beside it the log of the workspace that stays.
    assert tables_with(dora.user_id) == {"audit_event"}
    assert db.session.get_one(ApiKey, minted.key.id).created_by_id == alice.user_id
    assert log_of(alice)[: len(before)] == before
    assert log_of(alice)[len(before) :] == [
        ("user:delete", dora.email, dora.email),
        ("key:hand_over", dora.email, "Doras"),
        ("member:leave", dora.email, dora.email),
    ]
    assert audit_chain.verify(db.session, alice.workspace_id).broken is None
    (letter,) = db.session.query(MailMessage).filter(MailMessage.subject.contains("Your account was deleted"))
    assert (letter.recipient, letter.workspace_id) == (dora.email, None)
    with pytest.raises(WrongCredentials):
        enter(dora.email, Secret(PASSWORD), address=None, client=None)
    # The address is free again, and whoever takes it finds nothing of before.
    again = make_person(dora.email)
    assert [one.workspace_id for one in workspaces.memberships_of(db.session.get_one(User, again.user_id))] == [
        again.workspace_id
    ]


def test_keys_end_when_nobody_is_to_take_them_over(app: Flask, alice: Person, dora: Person) -> None:
    minted = keys.mint(alice.workspace, actor=dora.actor, name="Doras", kind="secret", environment="test")
    with pytest.raises(InvalidInput, match="just changed"):
        end(dora, heirs={})
    with pytest.raises(InvalidInput):
        end(dora, heirs={alice.workspace_id: "usr_nobody"})
    assert exists(dora)
    assert len(keys.living(alice.workspace)) == 1
    end(dora)
    assert keys.living(alice.workspace) == []
    assert db.session.get_one(ApiKey, minted.key.id).deleted_at is not None


def test_the_only_owner_of_others_and_the_last_operator_stay(app: Flask, alice: Person, dora: Person) -> None:
    with pytest.raises(InvalidInput, match=r"the only owner of alice\. Make someone else an owner first"):
        end(alice)
    members.change_role(alice.workspace, dora.user_id, "owner", actor=alice.actor)
    with transaction() as session:
        session.get_one(User, alice.user_id).is_operator = True
        other = session.get_one(User, dora.user_id)
        other.is_operator, other.closed_at = True, now()
    with pytest.raises(InvalidInput, match="the last operator"):
        end(alice)
    with transaction() as session:
        session.get_one(User, dora.user_id).closed_at = None
    end(alice)
    assert not exists(alice)
    assert [one.user_id for one in members.of_workspace(dora.workspace)] == [dora.user_id]
    shared = db.session.get_one(Workspace, alice.workspace_id)
    assert [owner.id for owner in members.owners_of(shared)] == [dora.user_id]


def test_what_the_page_did_not_tell_does_not_go(app: Flask, charlie: Person) -> None:
    seen = {charlie.workspace_id}
    user = db.session.get_one(User, charlie.user_id)
    another = workspaces.open_another("Another", owner=user, actor=charlie.actor).id
    for told in (seen, set(), seen | {another, "ws_more"}):
        with pytest.raises(InvalidInput, match="just changed"):
            end(charlie, seen=told)
    assert exists(charlie)
    end(charlie)
    assert db.session.get(Workspace, another) is None
    with pytest.raises(NotFound):
        account_end.delete_account(charlie.user_id, seen=set(), heirs={}, actor=charlie.actor)


def test_of_two_operators_who_go_at_the_same_moment_one_stays(app: Flask, alice: Person, charlie: Person) -> None:
    with transaction() as session:
        session.query(User).filter(User.id.in_([alice.user_id, charlie.user_id])).update({User.is_operator: True})
    outcomes = at_once(
        app,
        *(
            lambda person=person: account_end.delete_account(  # type: ignore[misc]
                person.user_id, seen={person.workspace_id}, heirs={}, actor=person.actor
            )
            for person in (alice, charlie)
        ),
    )
    assert sorted(outcomes) == ["InvalidInput", "done"]
    assert exists(alice) != exists(charlie)


def test_what_the_person_does_elsewhere_at_the_same_moment_leaves_nothing_without_them(app: Flask) -> None:
    """A sign-in, a key and a workspace in other browsers come before the end, or not at all."""
    for number in range(3):
        person = make_person(f"erin{number}@new.example")
        workspaces.set_plan(person.workspace, "agency", requests_per_minute=None, actor=person.actor)
        db.session.rollback()
        outcomes = at_once(
            app,
            lambda person=person: end(person),  # type: ignore[misc]
            lambda person=person: enter(person.email, Secret(PASSWORD), address=None, client=None),  # type: ignore[misc]
            lambda person=person: workspaces.open_another(  # type: ignore[misc]
                "More", owner=db.session.get_one(User, person.user_id), actor=person.actor
            ),
        )
        assert set(outcomes) <= {"done", "InvalidInput", "WrongCredentials", "NotFound"}, outcomes
        ownerless = select(Workspace.id).where(
            ~select(Membership).where(Membership.workspace_id == Workspace.id).exists()
        )
        assert db.session.scalars(ownerless).all() == []


def at_once(app: Flask, *acts: Callable[[], object]) -> list[str]:
    start, outcomes = threading.Barrier(len(acts)), []

    def run(act: Callable[[], object]) -> None:
        with app.app_context():
            start.wait()
            try:
                act()
            except Exception as error:
                refusal = as_portal_error(error)
                outcomes.append(type(refusal).__name__ if type(refusal) is not PortalError else repr(error))
            else:
                outcomes.append("done")
            finally:
                db.session.remove()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.session.rollback()
    return outcomes


def test_a_factor_that_is_decided_about_meanwhile_finds_nobody(app: Flask, charlie: Person) -> None:
    user = db.session.get_one(User, charlie.user_id)
    assert user.email
    with app.app_context():
        account_end.delete_account(charlie.user_id, seen={charlie.workspace_id}, heirs={}, actor=charlie.actor)
    with pytest.raises(WrongCredentials):
        sign_in.first_factor_done(user, methods=["password"], remembered=False, address=None, client=None)
    assert accounts.find(charlie.email) is None


def test_what_is_done_for_somebody_who_is_gone_is_not_found(app: Flask, charlie: Person) -> None:
    """Two requests of one person at the same moment: neither may fail as a fault of the portal."""
    user = db.session.get_one(User, charlie.user_id)
    with app.app_context():
        account_end.delete_account(charlie.user_id, seen={charlie.workspace_id}, heirs={}, actor=charlie.actor)
    db.session.rollback()
    with pytest.raises(ObjectDeletedError) as gone:
        _ = user.email
    key = {"id": "rec_x", "user_id": charlie.user_id, "digest": b"x" * 32, "created_at": now()}
    with pytest.raises(IntegrityError) as pointing, transaction() as session:
        session.execute(insert(RecoveryCode).values(key))
    assert as_portal_error(gone.value).status == 404
    assert as_portal_error(pointing.value).status == 404
    with pytest.raises(IntegrityError) as twice, transaction() as session:
        session.execute(insert(Workspace).values(id=None))
    assert as_portal_error(twice.value).status == 500
