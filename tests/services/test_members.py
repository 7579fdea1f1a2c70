"""Members: roles, removal, leaving, and the owner who has to stay."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from flask import Flask

from extensions import db
from models import ApiKey, AuditEvent, LoginSession, MailMessage, Membership, User
from models.base import now, transaction
from services import keys, members, sessions, workspaces
from services.actor import Actor
from services.errors import InvalidInput, NotFound, PermissionRefused
from services.keys import Minted
from services.permissions import Role
from tests.people import Person, join, make_person

Mint = Callable[..., Minted]


@pytest.fixture
def team(app: Flask, alice: Person) -> dict[str, Person]:
    """Alice's workspace with one member of each role; everybody's address is confirmed."""
    people = {Role.OWNER.value: alice}
    for role in (Role.ADMIN, Role.DEVELOPER, Role.VIEWER):
        people[role.value] = make_person(f"{role.value}@northwind.example")
        join(people[role.value], alice, role)
    with transaction() as session:
        session.query(User).update({User.email_confirmed_at: now()})
    return people


def role_of(person: Person, host: Person) -> str | None:
    db.session.rollback()
    membership = workspaces.find_membership(person.user_id, host.workspace_id)
    return membership.role if membership else None


def entries(host: Person) -> list[tuple[str, str | None]]:
    query = db.session.query(AuditEvent).filter_by(workspace_id=host.workspace_id).order_by(AuditEvent.number)
    return [(event.action, event.object_name) for event in query]


def letters_to(person: Person) -> list[MailMessage]:
    return db.session.query(MailMessage).filter_by(recipient=person.email).order_by(MailMessage.created_at).all()


def test_who_may_give_which_role_to_whom(team: dict[str, Person], alice: Person) -> None:
    """An admin neither makes nor unmakes owners, nobody raises themself, and others change nothing."""
    allowed = {
        (actor, target, role)
        for actor in team
        for target in team
        for role in [one.value for one in Role]
        if may_change(team, alice, actor, target, role)
    }
    everybody, roles = list(team), [one.value for one in Role]
    by_owner = {
        ("owner", target, role) for target in everybody for role in roles if target != "owner" or role == "owner"
    }
    by_admin = {
        ("admin", target, role) for target in ("admin", "developer", "viewer") for role in roles if role != "owner"
    }
    assert allowed == by_owner | by_admin


def may_change(team: dict[str, Person], host: Person, actor: str, target: str, role: str) -> bool:
    """Try a change of role, and undo it."""
    try:
        with transaction():
            members.change_role(host.workspace, team[target].user_id, role, actor=team[actor].actor)
            raise KeyError
    except KeyError:
        return True
    except (PermissionRefused, InvalidInput):
        return False


def test_a_change_of_role_holds_at_once_is_logged_and_told(team: dict[str, Person], alice: Person) -> None:
    viewer = team["viewer"]
    members.change_role(alice.workspace, viewer.user_id, "developer", actor=alice.actor)
    members.change_role(alice.workspace, viewer.user_id, "developer", actor=alice.actor)
    assert role_of(viewer, alice) == "developer"
    assert entries(alice).count(("member:change_role", viewer.email)) == 1
    letter = letters_to(viewer)[-1]
    assert letter.subject == "Your role in alice has changed"
    for text in (letter.text, letter.html):
        assert "developer" in text
        assert alice.email in text
    for role, error in (("king", InvalidInput), ("", InvalidInput)):
        with pytest.raises(error):
            members.change_role(alice.workspace, viewer.user_id, role, actor=alice.actor)
    with pytest.raises(NotFound):
        members.change_role(alice.workspace, "usr_nobody", "admin", actor=alice.actor)
    # What was decided on an earlier page does not count: the admin is none any more.
    admin = team["admin"]
    members.change_role(alice.workspace, admin.user_id, "viewer", actor=alice.actor)
    with pytest.raises(PermissionRefused):
        members.change_role(alice.workspace, viewer.user_id, "viewer", actor=admin.actor)


def test_the_last_owner_stays_owner(team: dict[str, Person], alice: Person) -> None:
    for act in (
        lambda: members.change_role(alice.workspace, alice.user_id, "admin", actor=alice.actor),
        lambda: members.remove(alice.workspace, alice.user_id, actor=alice.actor, heir_id=None),
        lambda: members.remove(alice.workspace, alice.user_id, actor=Actor("command", "tests"), heir_id=None),
    ):
        with pytest.raises(InvalidInput, match="Make someone else an owner first"):
            act()
    with pytest.raises(PermissionRefused):
        members.remove(alice.workspace, alice.user_id, actor=team["admin"].actor, heir_id=None)
    members.change_role(alice.workspace, team["admin"].user_id, "owner", actor=alice.actor)
    members.remove(alice.workspace, alice.user_id, actor=alice.actor, heir_id=None)
    assert role_of(alice, alice) is None
    assert ("member:leave", alice.email) in entries(alice)


def test_of_two_owners_who_leave_at_the_same_moment_one_stays(
    app: Flask, team: dict[str, Person], alice: Person
) -> None:
    admin = team["admin"]
    for _ in range(4):
        with transaction() as session:
            for person in (alice, admin):
                session.merge(
                    Membership(workspace_id=alice.workspace_id, user_id=person.user_id, role="owner", created_at=now())
                )
        db.session.rollback()
        start, outcomes = threading.Barrier(2), []

        def leave(person: Person, start: threading.Barrier = start, outcomes: list[str] = outcomes) -> None:
            with app.app_context():
                workspace = alice.workspace
                start.wait()
                try:
                    members.remove(workspace, person.user_id, actor=person.actor, heir_id=None)
                    outcomes.append("left")
                except InvalidInput:
                    outcomes.append("stays")
                finally:
                    db.session.remove()

        threads = [threading.Thread(target=leave, args=(person,)) for person in (alice, admin)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["left", "stays"]
        assert [role_of(person, alice) for person in (alice, admin)].count("owner") == 1


def test_keys_of_who_goes_are_handed_over_or_end(team: dict[str, Person], alice: Person, mint: Mint) -> None:
    dev, admin, viewer = team["developer"], team["admin"], team["viewer"]

    def key_of(person: Person, name: str) -> ApiKey:
        kind = {"kind": "secret", "environment": "live", "preset": "read_write"}
        return keys.mint(alice.workspace, actor=person.actor, name=name, role=Role.DEVELOPER, **kind).key

    handed, ended, foreign = key_of(dev, "handed"), key_of(admin, "ended"), mint("hers")
    handed_id, ended_id, foreign_id = handed.id, ended.id, foreign.key.id
    for heir in (viewer.user_id, dev.user_id, "usr_nobody"):
        with pytest.raises(InvalidInput, match="Choose who takes over"):
            members.remove(alice.workspace, dev.user_id, actor=alice.actor, heir_id=heir)
    members.remove(alice.workspace, dev.user_id, actor=alice.actor, heir_id=alice.user_id)
    members.remove(alice.workspace, admin.user_id, actor=alice.actor, heir_id=None)
    db.session.rollback()
    handed, ended = db.session.get_one(ApiKey, handed_id), db.session.get_one(ApiKey, ended_id)
    assert (handed.created_by_id, handed.created_by_name, handed.status()) == (alice.user_id, alice.email, "active")
    assert ended.deleted_at is not None
    assert ended.secrets == []
    assert db.session.get_one(ApiKey, foreign_id).deleted_at is None
    told = entries(alice)
    assert ("key:hand_over", "handed") in told
    assert ("key:delete", "ended") in told
    assert told.count(("member:remove", dev.email)) == 1
    assert [letter.subject for letter in letters_to(dev)] == ["You are no longer a member of alice"]
    # A page that had let the developer in before comes too late.
    with pytest.raises(PermissionRefused):
        key_of(dev, "too late")


def test_browsers_of_who_goes_look_elsewhere_or_at_nothing(team: dict[str, Person], alice: Person) -> None:
    viewer, dev = team["viewer"], team["developer"]
    found = {}
    for person in (viewer, dev):
        user = db.session.get_one(User, person.user_id)
        token = sessions.begin(user, methods=["password"], address=None, client=None)
        login_session = sessions.find(token)
        assert login_session is not None
        workspaces.look_at(login_session, alice.workspace_id)
        found[person.email] = login_session.id
    with transaction() as session:
        session.delete(session.get_one(Membership, (dev.workspace_id, dev.user_id)))
    for person in (viewer, dev):
        members.remove(alice.workspace, person.user_id, actor=alice.actor, heir_id=None)
    db.session.rollback()
    looks = {email: db.session.get_one(LoginSession, session_id).workspace_id for email, session_id in found.items()}
    assert looks == {viewer.email: viewer.workspace_id, dev.email: None}
    # Who belongs nowhere can still sign in.
    user = db.session.get_one(User, dev.user_id)
    assert sessions.find(sessions.begin(user, methods=["password"], address=None, client=None)) is not None
    # Nobody without a confirmed address gets mail but the link that asks for it.
    with transaction() as session:
        session.get_one(User, team["admin"].user_id).email_confirmed_at = None
    members.remove(alice.workspace, team["admin"].user_id, actor=alice.actor, heir_id=None)
    assert letters_to(team["admin"]) == []
