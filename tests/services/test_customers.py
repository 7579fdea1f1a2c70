"""What the operator sees of accounts and workspaces, and what is noted of what the operator does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask

from extensions import db
from models import AuditEvent, LoginSession, UsageRecord, User
from models.base import new_id, now, transaction
from services import accounts, customers, keys, workspaces
from services.actor import Actor
from services.errors import InvalidInput, NotFound, PermissionRefused, WrongCredentials
from services.keys import Minted
from services.secret import Secret
from tests import mailbox
from tests.people import PASSWORD, Person, enter, make_person
from tests.services.test_database import in_threads

Mint = Callable[..., Minted]
OPERATOR = Actor(kind="operator", name="ops@portal.example", id="usr_ops", address="192.0.2.7")
HERE = {"address": "127.0.0.1", "client": "tests"}


def at_once(app: Flask, work: Callable[[], object], count: int) -> list[BaseException]:
    failures = in_threads(app, work, count)
    # What the test reads next is what the others have committed.
    db.session.rollback()
    return failures


def user_of(person: Person) -> User:
    return db.session.get_one(User, person.user_id)


def make_operator(email: str) -> User:
    accounts.create_user(email, Secret(PASSWORD), is_operator=True, actor=OPERATOR)
    return customers.get_user_by_email(email)


def slugs(words: str) -> list[str]:
    return [facts.workspace.slug for facts in customers.find_workspaces(words).rows]


def emails(words: str) -> list[str]:
    return [facts.user.email for facts in customers.find_users(words).rows]


def test_a_workspace_is_found_by_name_slug_and_member(app: Flask, alice: Person, bob: Person, charlie: Person) -> None:
    assert slugs("") == ["alice", "bob", "charlie"]
    assert slugs("ALI") == ["alice"]
    # bob is a member of alice's.
    assert slugs("bob@northwind") == ["alice", "bob"]
    assert slugs("nothing like it") == []


def test_percent_and_underscore_are_letters(app: Flask, alice: Person) -> None:
    workspaces.create("50% off_er", owner=None, actor=alice.actor)
    assert slugs("%") == ["50-off-er"]
    assert slugs("f_e") == ["50-off-er"]
    assert slugs("5_") == []
    assert slugs("a%e") == []
    assert emails("a_ice") == []
    assert slugs("\\") == slugs("/") == []


def test_facts_count_what_works_and_what_was_used_lately(app: Flask, alice: Person, bob: Person, mint: Mint) -> None:
    used, stopped, expired, gone = mint("used"), mint("stopped"), mint("expired"), mint("gone")
    keys.disable(alice.workspace, stopped.key.id, actor=alice.actor)
    keys.delete(alice.workspace, gone.key.id, actor=alice.actor)
    with transaction() as session:
        expired.key.expires_at = now() - timedelta(seconds=1)
        for days, code in ((1, None), (29, None), (31, None), (1, "invalid_api_key")):
            session.add(
                UsageRecord(
                    request_id=new_id("req"), workspace_id=alice.workspace_id, api_key_id=used.key.id,
                    environment="test", endpoint="/v1/models", started_at=now() - timedelta(days=days), status=200,
                    code=code, streamed=False,
                )
            )  # fmt: skip
    enter(bob.email, Secret(PASSWORD), **HERE)
    facts = customers.find_workspaces("alice").rows[0]
    assert (facts.members, facts.keys, facts.requests) == (2, 1, 2)
    assert facts.last_sign_in_at == user_of(bob).last_sign_in_at is not None


def test_a_user_is_found_by_address_and_name(app: Flask, alice: Person, bob: Person) -> None:
    with transaction():
        user_of(bob).name = "Robert"
    assert emails("Northwind") == ["alice@northwind.example", "bob@northwind.example"]
    assert emails("robert") == ["bob@northwind.example"]
    assert [membership.role for membership in customers.find_users("bob").rows[0].memberships] == ["owner", "viewer"]


def test_a_plan_set_by_an_operator_is_in_the_workspace_s_log_with_the_reason(app: Flask, alice: Person) -> None:
    wish = {"requests_per_minute": None, "words": "Until May.", "actor": OPERATOR}
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(InvalidInput) as caught:
            customers.set_plan(alice.workspace, "starter", reason=reason, **wish)
        assert list(caught.value.fields) == ["reason"]
    assert alice.workspace.plan == "agency"
    customers.set_plan(alice.workspace, "starter", reason="Not paid.", **wish)
    entry = db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).first()
    assert entry is not None
    assert (entry.actor_kind, entry.actor_name, entry.address) == ("operator", "ops@portal.example", "192.0.2.7")
    assert entry.details["reason"] == "Not paid."
    assert (alice.workspace.plan, alice.workspace.plan_words) == ("starter", "Until May.")
    assert customers.workspaces_on_plans() == {"starter": 1, "agency": 0, "enterprise": 0}


def test_a_closed_account_is_signed_out_and_let_in_no_more(app: Flask, bob: Person, alice: Person) -> None:
    enter(bob.email, Secret(PASSWORD), **HERE)
    with pytest.raises(InvalidInput):
        customers.close_account(user_of(bob), reason=" ", actor=OPERATOR)
    customers.close_account(user_of(bob), reason="Left the company.", actor=OPERATOR)
    assert db.session.query(LoginSession).filter_by(user_id=bob.user_id).count() == 0
    with pytest.raises(WrongCredentials) as caught:
        enter(bob.email, Secret(PASSWORD), **HERE)
    assert caught.value.message == WrongCredentials.message
    entries = db.session.query(AuditEvent).filter_by(action="user:close").all()
    assert {entry.workspace_id for entry in entries} == {alice.workspace_id, bob.workspace_id}
    assert {entry.details["reason"] for entry in entries} == {"Left the company."}
    customers.reopen_account(user_of(bob), reason="Came back.", actor=OPERATOR)
    assert enter(bob.email, Secret(PASSWORD), **HERE)


def test_closing_twice_is_noted_once(app: Flask, bob: Person) -> None:
    failures = at_once(
        app, lambda: customers.close_account(user_of(bob), reason="x", actor=OPERATOR), count=4
    )  # fmt: skip
    assert failures == []
    assert db.session.query(AuditEvent).filter_by(action="user:close", workspace_id=bob.workspace_id).count() == 1
    customers.reopen_account(user_of(bob), reason="x", actor=OPERATOR)
    customers.reopen_account(user_of(bob), reason="x", actor=OPERATOR)
    assert db.session.query(AuditEvent).filter_by(action="user:reopen", workspace_id=bob.workspace_id).count() == 1
    assert mailbox.subjects(bob.email) == ["Your account was closed", "Your account is open again"]


def test_who_is_closed_is_told_without_the_reason_and_where_the_operator_sits(app: Flask, bob: Person) -> None:
    customers.close_account(user_of(bob), reason="Did not pay.", actor=OPERATOR)
    letter = mailbox.messages(bob.email)[-1]
    for text in (letter.text, letter.html):
        assert "The operator of this portal has closed your account." in text
        assert "By: the operator of this portal" in text
        assert OPERATOR.address is not None
        assert not [word for word in ("Did not pay.", OPERATOR.name, OPERATOR.address) if word in text]
    with transaction() as session:
        session.get_one(User, bob.user_id).email_confirmed_at = None
    customers.reopen_account(user_of(bob), reason="Paid.", actor=OPERATOR)
    assert mailbox.messages(bob.email)[-1].id == letter.id


def test_an_operator_is_always_left(app: Flask) -> None:
    ann, ben = make_operator("ann@portal.example"), make_operator("ben@portal.example")
    by_ann, by_ben = (Actor(kind="operator", name=user.email, id=user.id) for user in (ann, ben))
    with pytest.raises(PermissionRefused):
        customers.close_account(ann, reason="x", actor=by_ann)
    pairs = [(ann.id, by_ben), (ben.id, by_ann)]

    def close() -> None:
        user_id, actor = pairs.pop()
        customers.close_account(customers.get_user(user_id), reason="x", actor=actor)

    failures = at_once(app, close, count=2)
    assert [type(failure) for failure in failures] == [PermissionRefused]
    command = Actor(kind="command", name="root (command)")
    for email in ("ann@portal.example", "ben@portal.example"):
        user = customers.get_user_by_email(email)
        if user.closed_at is None:
            with pytest.raises(PermissionRefused):
                customers.close_account(user, reason="x", actor=command)


def test_who_does_not_exist_is_not_found(app: Flask) -> None:
    with pytest.raises(NotFound):
        customers.get_user("usr_nobody")
    with pytest.raises(NotFound):
        customers.get_user_by_email("nobody@portal.example")


def test_lists_come_in_pages_of_fifty(app: Flask) -> None:
    person = make_person("a@pages.example")
    for number in range(60):
        workspaces.create(f"w{number:02}", owner=None, actor=person.actor)
    page = customers.find_workspaces("w", 2)
    assert [facts.workspace.slug for facts in page.rows] == [f"w{number}" for number in range(50, 60)]
    assert (page.number, page.last, page.total) == (2, 2, 60)
