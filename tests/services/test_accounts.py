"""Accounts: sign-up, sign-in, sign-out and the first operator."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from extensions import db
from models import AuditEvent, LoginSession, User
from models.base import now, transaction
from models.quick import DatabaseUnavailable, Quick
from services import accounts, first_start, passwords, sessions, workspaces
from services.errors import InvalidInput, SetUpLinkUsed, WrongCredentials
from services.logs import clean
from services.secret import Secret
from tests.people import PASSWORD, Person, enter
from tests.services.test_database import in_threads

HERE = {"address": "127.0.0.1", "client": "tests"}


def sign_up(email: str = "new@people.example", password: str = PASSWORD) -> Secret:
    return accounts.sign_up(email, Secret(password), invited=True, **HERE)


def test_sign_up_makes_a_workspace_on_starter_and_signs_in(app: Flask) -> None:
    session = sessions.find(sign_up())
    assert session is not None
    (membership,) = workspaces.memberships_of(session.user)
    assert (membership.role, membership.workspace.plan) == ("owner", "starter")
    assert session.workspace_id == membership.workspace_id


def test_an_address_is_the_same_whatever_its_case(app: Flask) -> None:
    sign_up("  Mira@People.example ")
    enter("mira@people.EXAMPLE", Secret(PASSWORD), **HERE)
    with pytest.raises(InvalidInput):
        sign_up("MIRA@people.example")


@pytest.mark.parametrize("email", ["a@xn--bcher-kva.example", "re\u0301ne\u0301@people.example", "Ä@people.example"])
def test_who_signed_up_can_sign_in_with_the_very_same_text(app: Flask, email: str) -> None:
    sign_up(email)
    assert enter(email, Secret(PASSWORD), **HERE)


def test_reading_goes_on_when_nothing_can_be_written(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    token = sign_up()

    def locked(*_args: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(Quick, "run", locked)
    with time_machine.travel(now() + timedelta(minutes=5), tick=False):
        assert sessions.find(token) is not None


def test_a_session_notes_when_it_was_last_seen(app: Flask) -> None:
    token = sign_up()
    later = now() + timedelta(minutes=5)
    with time_machine.travel(later, tick=False):
        sessions.find(token)
    db.session.rollback()
    assert db.session.query(LoginSession).one().last_seen_at >= later - timedelta(seconds=1)


def test_sign_ins_at_once_do_not_block_each_other(app: Flask, alice: Person) -> None:
    failures = in_threads(app, lambda: enter(alice.email, Secret(PASSWORD), **HERE), count=8)
    assert failures == []
    assert db.session.query(LoginSession).count() == 8


def test_the_failure_of_a_statement_does_not_tell_its_values_to_the_log(app: Flask) -> None:
    hashed = "$argon2id$v=19$m=19456,t=2,p=1$canary$canary"
    statement = text('INSERT INTO "user" (id, email, password_hash) VALUES (:id, :email, :hash)')
    with pytest.raises(IntegrityError) as caught:
        db.session.execute(statement, {"id": "usr_x", "email": "x@people.example", "hash": hashed})
    assert "canary" not in clean(str(caught.value))
    assert "[parameters:" not in str(caught.value)
    db.session.rollback()


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [
        ("", PASSWORD, "email"),
        ("nobody", PASSWORD, "email"),
        ("a@b\0.example", PASSWORD, "email"),
        ("x" * 300 + "@people.example", PASSWORD, "email"),
        ("a@people.example", "", "password"),
        ("a@people.example", "fourteen chars", "password"),
        ("a@people.example", "x" * 129, "password"),
        ("a@people.example", "aaaaaaaaaaaaaaaaaaaaaa", "password"),
        ("someone@people.example", "someone@people.example", "password"),
    ],
)
def test_what_cannot_be_taken_is_named(app: Flask, email: str, password: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        sign_up(email, password)
    assert list(caught.value.fields) == [field]
    assert not password or password not in str(caught.value)
    assert db.session.query(User).count() == 0


@pytest.mark.parametrize(
    "password", ["fifteen chars..", "x1 y2 wood" * 12, "пароль из многих слов", "\ud800" + PASSWORD]
)
def test_length_counts_and_nothing_else(app: Flask, password: str) -> None:
    sign_up(password=password)
    assert enter("new@people.example", Secret(password), **HERE)


def test_a_wrong_password_and_a_missing_account_look_the_same(app: Flask, alice: Person) -> None:
    said = []
    for email, password in [(alice.email, "wrong " + PASSWORD), ("ghost@people.example", PASSWORD)]:
        with pytest.raises(WrongCredentials) as caught:
            enter(email, Secret(password), **HERE)
        said.append((caught.value.message, caught.value.status, caught.value.code))
    assert said[0] == said[1]


def test_a_missing_account_costs_a_password_check_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    true_matches = passwords.matches
    monkeypatch.setattr(passwords, "matches", lambda *args: verified.append(1) or true_matches(*args))
    with pytest.raises(WrongCredentials):
        enter("ghost@people.example", Secret(PASSWORD), **HERE)
    assert verified == [1]


def test_a_password_alone_begins_no_session(app: Flask, alice: Person) -> None:
    assert accounts.check_password(alice.email, Secret(PASSWORD)).id == alice.user_id
    assert db.session.query(LoginSession).count() == 0


@pytest.mark.parametrize("state", ["closed_at", "password_hash"])
def test_an_account_that_cannot_be_used_looks_like_none(app: Flask, alice: Person, state: str) -> None:
    with transaction() as session:
        setattr(session.get_one(User, alice.user_id), state, now() if state == "closed_at" else "")
    with pytest.raises(WrongCredentials):
        accounts.check_password(alice.email, Secret(PASSWORD))


def test_a_hash_of_former_parameters_is_renewed_at_sign_in(app: Flask, alice: Person) -> None:
    weak = Argon2id(salt=b"0" * 16, length=32, iterations=1, lanes=1, memory_cost=1024)
    with transaction() as session:
        session.get_one(User, alice.user_id).password_hash = weak.derive_phc_encoded(PASSWORD.encode())
    enter(alice.email, Secret(PASSWORD), **HERE)
    renewed = db.session.get_one(User, alice.user_id).password_hash
    assert not passwords.is_outdated(renewed)
    enter(alice.email, Secret(PASSWORD), **HERE)
    assert db.session.get_one(User, alice.user_id).password_hash == renewed


def test_after_sign_out_the_token_is_worth_nothing(app: Flask) -> None:
    token = sign_up()
    sessions.end(token)
    assert sessions.find(token) is None


def test_a_session_ends_by_itself(app: Flask) -> None:
    token = sign_up()
    with time_machine.travel(now() + sessions.IDLE + timedelta(seconds=1), tick=False):
        assert sessions.find(token) is None


def test_the_tables_hold_neither_password_nor_token(app: Flask) -> None:
    token = sign_up()
    held = "".join(
        str([tuple(row) for row in db.session.execute(text(f'SELECT * FROM "{table}"'))])
        for table in db.metadata.tables
    )
    assert PASSWORD not in held
    assert token.reveal() not in held
    assert "$argon2id$v=19$m=19456,t=2,p=1$" in held


def test_sign_in_is_in_the_audit_log(app: Flask, alice: Person) -> None:
    enter(alice.email, Secret(PASSWORD), address="203.0.113.9", client="browser")
    entry = db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).first()
    assert entry is not None
    assert (entry.action, entry.actor_name, entry.address) == ("user:sign_in", alice.email, "203.0.113.9")


# ---- the set-up link


def operator(token: Secret, email: str = "ops@people.example") -> Secret:
    return accounts.create_operator(token, email, Secret(PASSWORD), **HERE)


def test_the_set_up_link_is_the_same_until_it_is_used(app: Flask) -> None:
    first, second = accounts.set_up_token(), accounts.set_up_token()
    assert first is not None
    assert first == second
    assert accounts.set_up_open(first)


def test_the_set_up_link_makes_one_operator_and_no_second(app: Flask) -> None:
    token = accounts.set_up_token()
    assert token is not None
    session = sessions.find(operator(token))
    assert session is not None
    assert session.user.is_operator
    assert accounts.set_up_token() is None
    assert not accounts.set_up_open(token)
    with pytest.raises(SetUpLinkUsed):
        operator(token, "second@people.example")


def test_the_set_up_link_stays_used_when_the_operator_is_gone(app: Flask) -> None:
    token = accounts.set_up_token()
    assert token is not None
    operator(token)
    db.session.query(LoginSession).delete()
    db.session.execute(text("DELETE FROM membership"))
    db.session.query(User).delete()
    db.session.commit()
    assert not accounts.set_up_open(token)
    assert accounts.set_up_token() is None


@pytest.mark.parametrize("guess", ["", "x", "é", "A" * 43])
def test_a_guessed_set_up_link_opens_nothing(app: Flask, guess: str) -> None:
    accounts.set_up_token()
    assert not accounts.set_up_open(Secret(guess))
    with pytest.raises(SetUpLinkUsed):
        operator(Secret(guess))


def test_a_failed_set_up_leaves_the_link_open(app: Flask) -> None:
    token = accounts.set_up_token()
    assert token is not None
    with pytest.raises(InvalidInput):
        operator(token, "nobody")
    assert accounts.set_up_open(token)


def test_with_an_operator_made_by_command_there_is_no_link(app: Flask, alice: Person) -> None:
    accounts.create_user("ops@people.example", Secret(PASSWORD), is_operator=True, actor=alice.actor)
    assert accounts.set_up_token() is None


def test_the_operator_finds_the_demo_workspace(app: Flask) -> None:
    assert first_start.make_demo() is not None
    token = accounts.set_up_token()
    assert token is not None
    session = sessions.find(operator(token))
    assert session is not None
    assert {m.workspace.slug for m in workspaces.memberships_of(session.user)} == {"ops", "demo"}


def test_an_operator_made_by_command_finds_the_demo_workspace_too(app: Flask, alice: Person) -> None:
    workspaces.create("Demo", owner=None, actor=alice.actor)
    accounts.create_user("ops@people.example", Secret(PASSWORD), is_operator=True, actor=alice.actor)
    operator_user = db.session.query(User).filter_by(email="ops@people.example").one()
    assert {m.workspace.slug for m in workspaces.memberships_of(operator_user)} == {"ops", "demo"}


def test_the_demo_is_made_only_on_an_empty_instance(app: Flask) -> None:
    assert first_start.make_demo() is not None
    assert first_start.make_demo() is None


def test_a_portal_with_people_gets_no_demo(app: Flask, alice: Person) -> None:
    assert first_start.make_demo() is None
