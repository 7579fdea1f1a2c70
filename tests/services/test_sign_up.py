"""Sign-up, reset and change of address by mailed links: what each does, and what a stranger cannot do with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from flask import Flask

from extensions import db
from models import AuditEvent, LoginSession, MailedLink, SignInAttempt, User
from models.base import new_id, now, transaction
from services import (
    accounts,
    email_change,
    mailed_links,
    password_change,
    session_list,
    sessions,
    sign_up,
    workspaces,
)
from services.actor import Actor
from services.errors import InvalidInput, LinkUsed, NotFound, RateLimited, SignUpClosed, WrongCredentials
from services.secret import Secret
from tests import mailbox
from tests.people import PASSWORD, Person, enter
from tests.services.test_database import in_threads

HERE = {"address": "127.0.0.1", "client": "tests"}
STRANGER = Actor(kind="user", name="somebody", address="203.0.113.66", client="Mallory")
ERIN = "erin@new.example"
NEW_PASSWORD = Secret("quite another long phrase")


def user_of(person: Person) -> User:
    db.session.rollback()
    return db.session.get_one(User, person.user_id)


def session_of(person: Person) -> LoginSession:
    found = sessions.find(enter(person.email, Secret(person.password), **HERE))
    assert found is not None
    return found


def link(email: str, page: str) -> Secret:
    return Secret(mailbox.token(email, page))


# ---- sign-up


def test_a_confirmed_sign_up_has_a_workspace_and_a_session(app: Flask) -> None:
    sign_up.ask(f" {ERIN.upper()} ", STRANGER)
    session = sessions.find(sign_up.confirm(link(ERIN, "/confirm/"), Secret(PASSWORD), **HERE))
    assert session is not None
    assert session.user.email_confirmed_at is not None
    (membership,) = workspaces.memberships_of(session.user)
    assert (membership.role, membership.workspace.plan) == ("owner", "starter")
    assert accounts.check_password(ERIN, Secret(PASSWORD)).id == session.user_id


def test_an_address_that_was_asked_for_is_no_account_and_in_nobodys_way(app: Flask, alice: Person) -> None:
    sign_up.ask(ERIN, STRANGER)
    with pytest.raises(WrongCredentials):
        accounts.check_password(ERIN, Secret(PASSWORD))
    token = link(ERIN, "/confirm/")
    accounts.create_user(ERIN, NEW_PASSWORD, is_operator=False, actor=alice.actor)
    # What the stranger has asked for is gone, whoever opens the link.
    with pytest.raises(LinkUsed):
        sign_up.confirm(token, Secret(PASSWORD), **HERE)
    assert accounts.check_password(ERIN, NEW_PASSWORD)
    assert db.session.query(User).filter_by(email=ERIN).count() == 1


def test_a_strangers_sign_up_gives_them_nothing_when_the_owner_comes(app: Flask) -> None:
    """They asked first, several times; the owner opens one link and chooses the password."""
    for _ in range(2):
        sign_up.ask(ERIN, STRANGER)
    tokens = [message.text.split("/confirm/")[1][:43] for message in mailbox.messages(ERIN)]
    sign_up.confirm(Secret(tokens[0]), NEW_PASSWORD, **HERE)
    with pytest.raises(LinkUsed):
        sign_up.confirm(Secret(tokens[1]), Secret(PASSWORD), **HERE)
    assert db.session.query(LoginSession).count() == 1
    assert accounts.check_password(ERIN, NEW_PASSWORD)


def test_who_has_an_account_is_told_and_nothing_changes(app: Flask, alice: Person) -> None:
    before = user_of(alice).password_hash
    sign_up.ask(alice.email, STRANGER)
    (message,) = mailbox.messages(alice.email)
    assert "You have one already" in message.text
    assert "/sign-in" in message.text
    assert "/reset" in message.text
    assert "203.0.113.66" in message.text
    assert user_of(alice).password_hash == before


def test_a_link_ends_by_itself_and_an_address_is_forgotten(app: Flask) -> None:
    sign_up.ask(ERIN, STRANGER)
    token = link(ERIN, "/confirm/")
    with time_machine.travel(now() + timedelta(hours=25), tick=False):
        assert sign_up.asked_with(token) is None
        with pytest.raises(LinkUsed):
            sign_up.confirm(token, Secret(PASSWORD), **HERE)
        accounts.forget_unconfirmed()
        assert db.session.query(User).count() == 1
    with time_machine.travel(now() + timedelta(days=3), tick=False):
        accounts.forget_unconfirmed()
        mailed_links.forget_old()
    assert db.session.query(User).count() == 0
    assert db.session.query(MailedLink).count() == 0


def test_a_link_confirms_once_however_many_try(app: Flask) -> None:
    sign_up.ask(ERIN, STRANGER)
    token = link(ERIN, "/confirm/")
    failures = in_threads(app, lambda: sign_up.confirm(token, Secret(PASSWORD), **HERE), count=4)
    assert [type(failure) for failure in failures] == [LinkUsed] * 3
    db.session.rollback()
    assert db.session.query(LoginSession).count() == 1


def test_nobody_gets_more_than_three_messages_an_hour(app: Flask, alice: Person) -> None:
    for _ in range(5):
        sign_up.ask(ERIN, STRANGER)
        sign_up.ask(alice.email, STRANGER)
        password_change.ask_for_reset(alice.email, STRANGER)
    assert len(mailbox.messages(ERIN)) == 3
    assert len(mailbox.messages(alice.email)) == 6
    with time_machine.travel(now() + timedelta(minutes=61), tick=False):
        password_change.ask_for_reset(alice.email, STRANGER)
    assert len(mailbox.messages(alice.email)) == 7


def test_the_tables_hold_no_link(app: Flask) -> None:
    sign_up.ask(ERIN, STRANGER)
    row = db.session.query(MailedLink).one()
    assert link(ERIN, "/confirm/").reveal().encode() not in row.digest


@pytest.fixture
def closed_app(environment: dict[str, str], request: pytest.FixtureRequest) -> Flask:
    environment["ARKA_SIGN_UP"] = "closed"
    return request.getfixturevalue("app")


def test_closed_sign_up_refuses_strangers_and_lets_the_invited_in(closed_app: Flask) -> None:
    with pytest.raises(SignUpClosed):
        sign_up.ask(ERIN, STRANGER)
    assert db.session.query(User).count() == 0
    assert accounts.sign_up(ERIN, Secret(PASSWORD), invited=True, **HERE)


# ---- reset


def test_a_reset_sets_the_password_ends_everything_and_signs_nobody_in(app: Flask, alice: Person) -> None:
    session_of(alice)
    user = user_of(alice)
    email_change.ask(user, "alice@elsewhere.example", Secret(PASSWORD), alice.actor)
    begin_attempt(user)
    password_change.ask_for_reset(alice.email.upper(), STRANGER)
    token = link(alice.email, "/reset/")
    change = link("alice@elsewhere.example", "/email/")
    password_change.reset(token, NEW_PASSWORD, **HERE)
    assert db.session.query(LoginSession).count() == 0
    assert db.session.query(SignInAttempt).one().expires_at <= now()
    assert accounts.check_password(alice.email, NEW_PASSWORD)
    with pytest.raises(WrongCredentials):
        accounts.check_password(alice.email, Secret(PASSWORD))
    assert email_change.waiting(user_of(alice), change) is None
    with pytest.raises(LinkUsed):
        password_change.reset(token, Secret(PASSWORD), **HERE)
    assert mailbox.subjects(alice.email)[-1] == "Your password was changed"
    assert "user:change_password" in {entry.action for entry in db.session.query(AuditEvent)}


def begin_attempt(user: User) -> None:
    """A sign-in whose password was right and that waits for a second factor."""
    with transaction() as session:
        session.add(
            SignInAttempt(
                id=new_id("att"),
                token_digest=b"x" * 32,
                kind="second_factor",
                user_id=user.id,
                remembered=False,
                details={},
                created_at=now(),
                expires_at=now() + timedelta(minutes=10),
            )
        )


def test_an_unknown_and_a_closed_address_get_no_message(app: Flask, alice: Person) -> None:
    accounts.close(user_of(alice), alice.actor)
    for ask in (password_change.ask_for_reset, sign_up.ask):
        ask(alice.email, STRANGER)
    password_change.ask_for_reset("ghost@people.example", STRANGER)
    assert mailbox.messages(alice.email) == []
    assert mailbox.messages("ghost@people.example") == []
    assert db.session.query(User).count() == 1


def test_a_reset_link_ends_after_an_hour_and_a_refused_password_keeps_it(app: Flask, alice: Person) -> None:
    password_change.ask_for_reset(alice.email, STRANGER)
    token = link(alice.email, "/reset/")
    with pytest.raises(InvalidInput):
        password_change.reset(token, Secret("northwind alice1"), **HERE)
    assert password_change.reset_open(token) is not None
    with time_machine.travel(now() + timedelta(minutes=61), tick=False):
        assert password_change.reset_open(token) is None


def test_one_of_two_resets_at_once_counts(app: Flask, alice: Person) -> None:
    password_change.ask_for_reset(alice.email, STRANGER)
    token = link(alice.email, "/reset/")
    failures = in_threads(app, lambda: password_change.reset(token, NEW_PASSWORD, **HERE), count=4)
    assert [type(failure) for failure in failures] == [LinkUsed] * 3


def test_a_link_is_good_for_its_own_purpose_only(app: Flask, alice: Person) -> None:
    password_change.ask_for_reset(alice.email, STRANGER)
    token = link(alice.email, "/reset/")
    assert sign_up.asked_with(token) is None
    assert email_change.undone_by(token) is None
    assert email_change.waiting(user_of(alice), token) is None


# ---- change of password


def test_a_change_of_password_keeps_this_browser_and_ends_the_others(app: Flask, alice: Person) -> None:
    here, _other = session_of(alice), session_of(alice)
    password_change.ask_for_reset(alice.email, STRANGER)
    password_change.change(here, Secret(PASSWORD), NEW_PASSWORD, alice.actor)
    assert [row.id for row in session_list.living(user_of(alice))] == [here.id]
    assert password_change.reset_open(link(alice.email, "/reset/")) is None
    assert accounts.check_password(alice.email, NEW_PASSWORD)


def test_a_wrong_present_password_changes_nothing(app: Flask, alice: Person) -> None:
    with pytest.raises(InvalidInput) as caught:
        password_change.change(session_of(alice), Secret("wrong"), NEW_PASSWORD, alice.actor)
    assert list(caught.value.fields) == ["current"]
    assert accounts.check_password(alice.email, Secret(PASSWORD))


# ---- change of address


def test_an_address_changes_when_its_owner_opens_the_link_and_not_before(app: Flask, alice: Person) -> None:
    new = "alice@elsewhere.example"
    email_change.ask(user_of(alice), f" {new.upper()} ", Secret(PASSWORD), alice.actor)
    assert user_of(alice).email == alice.email
    assert mailbox.subjects(alice.email) == ["Your e-mail address is to be changed"]
    token = link(new, "/email/")
    email_change.confirm(user_of(alice), token, alice.actor)
    assert user_of(alice).email == new
    assert mailbox.subjects(alice.email)[-1] == "Your e-mail address was changed"
    with pytest.raises(LinkUsed):
        email_change.confirm(user_of(alice), token, alice.actor)


def test_a_link_to_a_mistyped_address_gives_a_stranger_nothing(app: Flask, alice: Person, charlie: Person) -> None:
    email_change.ask(user_of(alice), "typo@elsewhere.example", Secret(PASSWORD), alice.actor)
    token = link("typo@elsewhere.example", "/email/")
    with pytest.raises(LinkUsed):
        email_change.confirm(user_of(charlie), token, charlie.actor)
    assert user_of(alice).email == alice.email


def test_an_address_that_has_an_account_is_told_to_its_owner_alone(app: Flask, alice: Person, charlie: Person) -> None:
    asked = email_change.ask(user_of(alice), charlie.email, Secret(PASSWORD), alice.actor)
    assert asked == charlie.email
    assert mailbox.subjects(charlie.email) == ["This address has an account already"]
    assert "/email/" not in mailbox.messages(charlie.email)[0].text


def test_an_address_that_was_taken_meanwhile_does_not_move(app: Flask, alice: Person) -> None:
    email_change.ask(user_of(alice), ERIN, Secret(PASSWORD), alice.actor)
    token = link(ERIN, "/email/")
    accounts.create_user(ERIN, NEW_PASSWORD, is_operator=False, actor=alice.actor)
    with pytest.raises(LinkUsed):
        email_change.confirm(user_of(alice), token, alice.actor)
    assert user_of(alice).email == alice.email


def test_the_old_address_can_stop_a_change(app: Flask, alice: Person) -> None:
    email_change.ask(user_of(alice), "mallory@evil.example", Secret(PASSWORD), alice.actor)
    assert not email_change.undo(link(alice.email, "/email/undo/"), **HERE)
    token = link("mallory@evil.example", "/email/")
    with pytest.raises(LinkUsed):
        email_change.confirm(user_of(alice), token, alice.actor)
    assert accounts.check_password(alice.email, Secret(PASSWORD))


def test_the_old_address_can_take_a_change_back_and_the_thief_is_out(app: Flask, alice: Person) -> None:
    """Somebody with the password and a session moves the account away, and resets the password there as well."""
    mallory = "mallory@evil.example"
    email_change.ask(user_of(alice), mallory, Secret(PASSWORD), alice.actor)
    email_change.confirm(user_of(alice), link(mallory, "/email/"), alice.actor)
    password_change.ask_for_reset(mallory, STRANGER)
    password_change.reset(link(mallory, "/reset/"), NEW_PASSWORD, **HERE)
    enter(mallory, NEW_PASSWORD, **HERE)
    password_change.ask_for_reset(mallory, STRANGER)
    late = link(mallory, "/reset/")

    assert email_change.undo(link(alice.email, "/email/undo/"), **HERE)
    assert user_of(alice).email == alice.email
    assert db.session.query(LoginSession).count() == 0
    for password in (Secret(PASSWORD), NEW_PASSWORD):
        with pytest.raises(WrongCredentials):
            accounts.check_password(alice.email, password)
    assert password_change.reset_open(late) is None
    password_change.ask_for_reset(alice.email, STRANGER)
    password_change.reset(link(alice.email, "/reset/"), Secret("yet another long phrase"), **HERE)
    assert accounts.check_password(alice.email, Secret("yet another long phrase"))


def test_what_is_wrong_with_a_change_is_told_at_once(app: Flask, alice: Person) -> None:
    with pytest.raises(InvalidInput) as caught:
        email_change.ask(user_of(alice), "nobody", Secret("wrong"), alice.actor)
    assert set(caught.value.fields) == {"email", "password"}
    with pytest.raises(InvalidInput):
        email_change.ask(user_of(alice), alice.email.upper(), Secret(PASSWORD), alice.actor)


def test_a_person_does_not_flood_others_with_changes(app: Flask, alice: Person) -> None:
    for number in range(3):
        email_change.ask(user_of(alice), f"x{number}@elsewhere.example", Secret(PASSWORD), alice.actor)
    with pytest.raises(RateLimited):
        email_change.ask(user_of(alice), "x4@elsewhere.example", Secret(PASSWORD), alice.actor)
    # The latest counts alone.
    assert email_change.waiting(user_of(alice), link("x0@elsewhere.example", "/email/")) is None
    assert email_change.waiting(user_of(alice), link("x2@elsewhere.example", "/email/")) is not None


# ---- sessions, and closing


def test_a_person_ends_their_own_sessions_only(app: Flask, alice: Person, charlie: Person) -> None:
    here, other, foreign = session_of(alice), session_of(alice), session_of(charlie)
    with pytest.raises(NotFound):
        session_list.end_one(user_of(alice), foreign.id, alice.actor)
    session_list.end_one(user_of(alice), other.id, alice.actor)
    assert [row.id for row in session_list.living(user_of(alice))] == [here.id]
    assert session_list.end_all(user_of(charlie)) == 1


def test_a_closed_account_is_shut_and_comes_back_with_its_workspaces(app: Flask, alice: Person) -> None:
    session_of(alice)
    password_change.ask_for_reset(alice.email, STRANGER)
    token = link(alice.email, "/reset/")
    operator = Actor(kind="operator", name="op@portal.example")
    accounts.close(user_of(alice), operator)
    accounts.close(user_of(alice), operator)
    assert session_list.living(user_of(alice)) == []
    assert password_change.reset_open(token) is None
    with pytest.raises(LinkUsed):
        password_change.reset(token, NEW_PASSWORD, **HERE)
    with pytest.raises(WrongCredentials):
        accounts.check_password(alice.email, Secret(PASSWORD))
    accounts.reopen(user_of(alice), operator)
    assert accounts.check_password(alice.email, Secret(PASSWORD))
    # A link from before stays void.
    assert password_change.reset_open(token) is None
    told = [entry.action for entry in db.session.query(AuditEvent) if entry.actor_kind == "operator"]
    assert told == ["user:close", "user:reopen"]
