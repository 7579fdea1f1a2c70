"""The second factor: codes of an app, recovery codes, and how a sign-in goes on to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import func, select, text, update

from extensions import db
from models import AuditEvent, LoginSession, RecoveryCode, SignInAttempt, TotpSecret, User
from models.base import now, transaction
from services import (
    accounts,
    passwords,
    recovery_codes,
    sealing,
    second_factor,
    sessions,
    sign_in,
    sign_in_attempts,
    totp,
)
from services.errors import InvalidInput, WrongCredentials
from services.parts import parts
from services.second_factor import TooManyCodes, WrongCode
from services.secret import Secret
from services.sign_in import SignInOver
from tests.factors import WHERE, add_app, code_of, confirm_address, subjects, user_of, wrong
from tests.people import PASSWORD, Person


def begin(person: Person, *, remembered: bool = False) -> Secret:
    """Take the first step; return the token of the attempt."""
    step = sign_in.first_factor_done(user_of(person), methods=["password"], remembered=remembered, **WHERE)
    assert step.session is None
    assert step.attempt is not None
    return step.attempt


def session_of(token: Secret) -> LoginSession:
    found = sessions.find(token)
    assert found is not None
    return found


def finish(person: Person, code: str) -> LoginSession:
    return session_of(sign_in.with_code(begin(person), code, **WHERE))


# ---- steps


def test_who_has_no_second_factor_is_signed_in_by_the_password(app: Flask, alice: Person) -> None:
    step = sign_in.with_password(alice.email, Secret(PASSWORD), remembered=False, **WHERE)
    assert step.attempt is None
    assert step.session is not None
    assert session_of(step.session).methods == ["password"]


def test_a_password_alone_begins_no_session_once_there_is_an_app(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    attempt = sign_in.with_password(alice.email, Secret(PASSWORD), remembered=False, **WHERE).attempt
    assert attempt is not None
    assert db.session.query(LoginSession).count() == 0
    assert sessions.find(attempt) is None
    session = session_of(sign_in.with_code(attempt, code_of(secret), **WHERE))
    assert session.methods == ["password", "totp"]
    assert session.user_id == alice.user_id


def test_an_attempt_is_finished_once(app: Flask, alice: Person) -> None:
    secret, codes = add_app(alice)
    attempt = begin(alice)
    sign_in.with_code(attempt, code_of(secret), **WHERE)
    with pytest.raises(SignInOver):
        sign_in.with_code(attempt, codes[0], **WHERE)


def test_an_attempt_lasts_ten_minutes(app: Flask, alice: Person) -> None:
    _, codes = add_app(alice)
    attempt = begin(alice)
    with time_machine.travel(now() + timedelta(minutes=9, seconds=50), tick=False):
        sign_in.waiting(attempt)
    with time_machine.travel(now() + timedelta(minutes=10, seconds=1), tick=False), pytest.raises(SignInOver):
        sign_in.with_code(attempt, codes[0], **WHERE)


def test_an_account_that_was_closed_between_the_steps_stays_shut(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    attempt = begin(alice)
    with transaction() as session:
        session.get_one(User, alice.user_id).closed_at = now()
    with pytest.raises(WrongCredentials):
        sign_in.with_code(attempt, code_of(secret), **WHERE)
    assert db.session.query(LoginSession).count() == 0


def test_a_password_that_was_changed_between_the_steps_is_worth_nothing(app: Flask, alice: Person) -> None:
    _, codes = add_app(alice)
    attempt = begin(alice)
    with transaction() as session:
        session.get_one(User, alice.user_id).password_changed_at = now()
    with pytest.raises(SignInOver):
        sign_in.with_code(attempt, codes[0], **WHERE)
    assert db.session.query(LoginSession).count() == 0
    assert finish(alice, codes[0])


def test_a_password_that_is_changed_while_it_is_checked_begins_nothing(
    app: Flask, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_check = accounts.check_password

    def slow_check(email: str, password: Secret) -> User:
        user = true_check(email, password)
        assert user.password_hash
        with app.app_context(), transaction() as session:
            session.get_one(User, alice.user_id).password_hash = "another"
        return user

    monkeypatch.setattr(accounts, "check_password", slow_check)
    with pytest.raises(WrongCredentials):
        sign_in.with_password(alice.email, Secret(PASSWORD), remembered=False, **WHERE)
    assert db.session.query(LoginSession).count() == 0


def test_a_guessed_or_missing_attempt_is_over(app: Flask, alice: Person) -> None:
    for token in (None, Secret(""), Secret("guessed")):
        with pytest.raises(SignInOver):
            sign_in.waiting(token)


def test_the_tables_hold_no_token_of_an_attempt(app: Flask, alice: Person) -> None:
    add_app(alice)
    attempt = begin(alice)
    held = str([tuple(row) for row in db.session.execute(text("SELECT * FROM sign_in_attempt"))])
    assert attempt.reveal() not in held


# ---- codes of the app


def test_a_clock_may_be_one_step_off(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    start = now()
    for hours, (steps, taken) in enumerate([(-2, False), (-1, True), (0, True), (1, True), (2, False)], start=1):
        with time_machine.travel(start + timedelta(hours=hours), tick=False):
            if taken:
                assert finish(alice, code_of(secret, steps)), steps
            else:
                with pytest.raises(WrongCode):
                    finish(alice, code_of(secret, steps))


def test_a_code_is_taken_once(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    with time_machine.travel(now() + timedelta(minutes=5), tick=False):
        code = code_of(secret)
        finish(alice, code)
        with pytest.raises(WrongCode):
            finish(alice, code)
        with pytest.raises(WrongCode):
            finish(alice, code_of(secret, -1))
        finish(alice, code_of(secret, 1))


def test_the_code_that_set_the_app_up_opens_nothing(app: Flask, alice: Person) -> None:
    with time_machine.travel(now(), tick=False):
        secret, _ = add_app(alice)
        with pytest.raises(WrongCode):
            finish(alice, code_of(secret, -1))


def test_of_two_at_once_with_one_code_one_is_let_in(app: Flask, alice: Person) -> None:
    secret, codes = add_app(alice)
    attempts = [begin(alice) for _ in range(6)]
    for code in (code_of(secret), codes[0]):
        done: list[str] = []
        sign_in_at_once(app, [lambda a=a, c=code: sign_in.with_code(a, c, **WHERE) for a in attempts], done)
        assert sorted(done) == ["WrongCode"] * (len(attempts) - 1) + ["let in"]
        attempts = [begin(alice) for _ in range(4)]


def sign_in_at_once(app: Flask, works: list[Callable[[], object]], done: list[str]) -> None:
    def run(work: Callable[[], object]) -> None:
        with app.app_context():
            try:
                work()
                done.append("let in")
            except Exception as error:
                done.append(type(error).__name__)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_a_code_may_be_typed_with_spaces(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    start = now()
    for hours, typed in enumerate(["{0} {1}", " {0}{1} ", "{0}\u00a0{1}"], start=1):
        with time_machine.travel(start + timedelta(hours=hours), tick=False):
            code = code_of(secret)
            assert finish(alice, typed.format(code[:3], code[3:]))


def test_what_is_no_code_is_wrong_and_no_failure(app: Flask, alice: Person) -> None:
    add_app(alice)
    for typed in ("", " ", "12345", "1234567", "١٢٣٤٥٦", "abcdef", "x" * 5000, "\ud800" * 16, "-1-2-3"):
        with pytest.raises(WrongCode):
            sign_in.with_code(begin(alice), typed, **WHERE)


def test_another_persons_code_is_wrong(app: Flask, alice: Person, charlie: Person) -> None:
    add_app(alice)
    secret, codes = add_app(charlie)
    for code in (code_of(secret), codes[0]):
        with pytest.raises(WrongCode):
            finish(alice, code)


def test_a_clock_that_was_put_right_locks_nobody_out(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    with time_machine.travel(now() + timedelta(days=1), tick=False):
        finish(alice, code_of(secret))
    assert finish(alice, code_of(secret))


# ---- guessing


def test_five_wrong_codes_end_an_attempt(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    attempt = begin(alice)
    for _ in range(sign_in.MOST_TRIES):
        with pytest.raises(WrongCode):
            sign_in.with_code(attempt, wrong(secret), **WHERE)
    with pytest.raises(SignInOver):
        sign_in.with_code(attempt, code_of(secret), **WHERE)


def guess(person: Person, secret: str, times: int) -> None:
    for _ in range(times):
        with pytest.raises(WrongCode):
            sign_in.with_code(begin(person), wrong(secret), **WHERE)


def test_ten_wrong_codes_an_hour_over_all_attempts(app: Flask, alice: Person) -> None:
    secret, codes = add_app(alice)
    guess(alice, secret, 10)
    with pytest.raises(TooManyCodes):
        finish(alice, code_of(secret))
    assert finish(alice, codes[0]).methods == ["password", "recovery_code"]
    with time_machine.travel(now() + timedelta(hours=1, seconds=1), tick=False):
        assert finish(alice, code_of(secret))


def test_thirty_wrong_codes_a_day(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    start = now()
    for hours in (0, 2, 4):
        with time_machine.travel(start + timedelta(hours=hours), tick=False):
            guess(alice, secret, 10)
    with time_machine.travel(start + timedelta(hours=12), tick=False), pytest.raises(TooManyCodes):
        finish(alice, code_of(secret))
    with time_machine.travel(start + timedelta(hours=24, seconds=1), tick=False):
        sign_in_attempts.forget_old()
        assert finish(alice, code_of(secret))


def test_wrong_codes_are_remembered_when_attempts_are_forgotten(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    guess(alice, secret, 10)
    begin(alice)
    with time_machine.travel(now() + timedelta(minutes=30), tick=False):
        assert sign_in_attempts.forget_old() is False
        assert db.session.scalar(select(func.count()).select_from(SignInAttempt)) == 10
        with pytest.raises(TooManyCodes):
            finish(alice, code_of(secret))


def test_a_new_password_shuts_out_who_guessed_and_not_the_owner(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    guess(alice, secret, 10)
    with transaction() as session:
        session.get_one(User, alice.user_id).password_changed_at = now()
    assert finish(alice, code_of(secret))


def test_the_owner_is_told_of_wrong_codes(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    secret, _ = add_app(alice)
    before = len(subjects())
    guess(alice, secret, 4)
    assert subjects()[before:] == []
    guess(alice, secret, 6)
    assert subjects()[before:] == ["Wrong codes", "Wrong codes"]
    assert actions().count("user:codes_refused") == 2


def actions() -> list[str]:
    return list(db.session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)))


# ---- setting up and switching off


def test_an_app_counts_once_a_code_was_shown(app: Flask, alice: Person) -> None:
    user = user_of(alice)
    totp.begin(user)
    assert not second_factor.is_on(user)
    set_up = totp.set_up_of(user)
    assert set_up is not None
    with pytest.raises(InvalidInput):
        second_factor.confirm_app(user, wrong(set_up.secret.reveal()), alice.actor)
    assert not second_factor.is_on(user)
    codes = second_factor.confirm_app(user, code_of(set_up.secret.reveal()), alice.actor)
    assert second_factor.is_on(user)
    assert len(codes) == 10
    assert totp.set_up_of(user) is None


def test_the_address_for_the_app_names_the_portal_and_the_person(app: Flask, alice: Person) -> None:
    totp.begin(user_of(alice))
    set_up = totp.set_up_of(user_of(alice))
    assert set_up is not None
    assert set_up.address.reveal().startswith("otpauth://totp/ARKA:alice%40northwind.example?secret=")


def test_beginning_again_replaces_only_what_does_not_count_yet(app: Flask, alice: Person) -> None:
    user = user_of(alice)
    totp.begin(user)
    first = totp.set_up_of(user)
    totp.begin(user)
    second = totp.set_up_of(user)
    assert first is not None
    assert second is not None
    assert first.secret != second.secret
    second_factor.confirm_app(user, code_of(second.secret.reveal()), alice.actor)
    totp.begin(user)
    assert totp.find(user) is not None


def test_beginning_again_waits_for_the_vault_before_it_touches_the_row(
    app: Flask, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation takes the two in this order. The other way round each would wait for the other."""
    totp.begin(user_of(alice))
    take_turn, rows = sealing.take_turn, []

    def look_and_take_turn() -> None:
        rows.append(db.session.query(TotpSecret).count())
        take_turn()

    monkeypatch.setattr(sealing, "take_turn", look_and_take_turn)
    totp.begin(user_of(alice))
    assert rows[0] == 1


def test_a_set_up_that_was_left_for_an_hour_is_over(app: Flask, alice: Person) -> None:
    user = user_of(alice)
    totp.begin(user)
    set_up = totp.set_up_of(user)
    assert set_up is not None
    with time_machine.travel(now() + timedelta(hours=1, seconds=1), tick=False):
        assert totp.set_up_of(user) is None
        with pytest.raises(InvalidInput):
            second_factor.confirm_app(user, code_of(set_up.secret.reveal()), alice.actor)


def test_the_secret_is_sealed_for_its_row(app: Flask, alice: Person) -> None:
    secret, codes = add_app(alice)
    row = db.session.scalars(select(TotpSecret)).one()
    held = "".join(
        str([tuple(row) for row in db.session.execute(text(f'SELECT * FROM "{table}"'))])
        for table in db.metadata.tables
    )
    assert secret not in held
    assert not any(code in held or code.replace("-", "") in held for code in codes)
    place = totp.place_of(row.id, row.user_id)
    assert place == f"totp/{row.id}/{alice.user_id}"
    assert parts().vault.open(row.sealed, place).reveal() == secret


def test_a_secret_that_cannot_be_read_lets_nobody_in_and_locks_nobody_out(app: Flask, alice: Person) -> None:
    secret, codes = add_app(alice)
    with transaction() as session:
        session.execute(update(TotpSecret).values(sealed="v1.00000000.AAAA.AAAA"))
    standing = second_factor.standing(user_of(alice))
    assert standing.on
    assert not standing.app_readable
    with pytest.raises(WrongCode):
        finish(alice, code_of(secret))
    assert finish(alice, codes[3])


def test_switching_off_needs_the_password_and_ends_the_recovery_codes(app: Flask, alice: Person) -> None:
    add_app(alice)
    for given in (None, Secret("not the right password")):
        with pytest.raises(InvalidInput):
            second_factor.remove_app(user_of(alice), alice.actor, password=given)
    second_factor.remove_app(user_of(alice), alice.actor, password=Secret(PASSWORD))
    assert not second_factor.is_on(user_of(alice))
    assert db.session.query(RecoveryCode).count() == 0
    assert sign_in.with_password(alice.email, Secret(PASSWORD), remembered=False, **WHERE).session is not None


def test_a_short_password_does_not_stand_alone(app: Flask, alice: Person) -> None:
    add_app(alice)
    with transaction() as session:
        session.get_one(User, alice.user_id).password_hash = passwords.hash_password(Secret("only nine"))
    with pytest.raises(InvalidInput, match="at least 15 characters first"):
        second_factor.remove_app(user_of(alice), alice.actor, password=Secret("only nine"))
    assert second_factor.is_on(user_of(alice))


def test_who_has_no_password_may_switch_off_without_one(app: Flask, alice: Person) -> None:
    add_app(alice)
    with transaction() as session:
        session.get_one(User, alice.user_id).password_hash = ""
    second_factor.remove_app(user_of(alice), alice.actor, password=None)
    assert not second_factor.is_on(user_of(alice))


def test_an_operator_lets_in_who_has_lost_everything(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    add_app(alice)
    command = ["user", "reset-second-factor"]
    runner = app.test_cli_runner()
    assert runner.invoke(args=[*command, "nobody@northwind.example"]).exit_code == 1
    for _ in range(2):
        assert runner.invoke(args=[*command, alice.email.upper()]).exit_code == 0
    assert not second_factor.is_on(user_of(alice))
    assert db.session.query(RecoveryCode).count() == 0
    assert subjects()[-1] == "Two-factor authentication is off"
    assert actions().count("user:second_factor_off") == 1


def test_every_change_is_in_the_log_and_in_a_mail(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    add_app(alice)
    second_factor.new_codes(user_of(alice), alice.actor)
    second_factor.remove_app(user_of(alice), alice.actor, password=Secret(PASSWORD))
    told = ["app_add", "second_factor_on", "recovery_codes_make", "app_remove", "second_factor_off"]
    assert [action.removeprefix("user:") for action in actions() if action.startswith("user:")] == told
    assert subjects() == [
        "An authenticator app was added",
        "Two-factor authentication is on",
        "New recovery codes",
        "An authenticator app was removed",
        "Two-factor authentication is off",
    ]


def test_no_mail_goes_to_an_address_that_was_not_confirmed(app: Flask, alice: Person) -> None:
    with transaction() as session:
        session.get_one(User, alice.user_id).email_confirmed_at = None
    add_app(alice)
    assert subjects() == []


# ---- recovery codes


def test_a_recovery_code_works_once_and_is_told_of(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    _, codes = add_app(alice)
    before = len(subjects())
    assert finish(alice, codes[0]).methods == ["password", "recovery_code"]
    with pytest.raises(WrongCode):
        finish(alice, codes[0])
    assert recovery_codes.left(user_of(alice)) == 9
    assert subjects()[before:] == ["A recovery code was used"]


def test_a_recovery_code_may_be_typed_in_many_ways(app: Flask, alice: Person) -> None:
    _, codes = add_app(alice)
    changes = [str.upper, lambda code: code.replace("-", ""), lambda code: code.replace("-", " – ")]
    for code, change in zip(codes, changes, strict=False):
        assert finish(alice, f" {change(code)} ")


def test_letters_that_look_alike_are_the_same() -> None:
    assert recovery_codes.plain_form("0O0o-1Il1-aaaa-bbbb") == "00001111aaaabbbb"
    assert recovery_codes.plain_form("uuuu-uuuu-uuuu-uuuu") is None


def test_new_codes_end_the_earlier_ones(app: Flask, alice: Person) -> None:
    _, codes = add_app(alice)
    fresh = [code.reveal() for code in second_factor.new_codes(user_of(alice), alice.actor)]
    assert set(fresh).isdisjoint(codes)
    with pytest.raises(WrongCode):
        finish(alice, codes[0])
    assert finish(alice, fresh[0])


def test_there_are_no_recovery_codes_without_a_second_factor(app: Flask, alice: Person) -> None:
    with pytest.raises(InvalidInput):
        second_factor.new_codes(user_of(alice), alice.actor)


# ---- sessions


def test_a_session_ends_when_it_is_not_used_or_too_old(app: Flask, alice: Person) -> None:
    for remembered, idle, longest in [
        (False, timedelta(hours=12), timedelta(days=7)),
        (True, timedelta(days=14), timedelta(days=30)),
    ]:
        start = now()
        step = sign_in.with_password(alice.email, Secret(PASSWORD), remembered=remembered, **WHERE)
        token = step.session
        assert token is not None
        at = start
        while at < start + longest - idle:
            at += idle - timedelta(minutes=5)
            with time_machine.travel(at, tick=False):
                assert session_of(token).remembered is remembered
            db.session.rollback()
        with time_machine.travel(at + idle + timedelta(minutes=1), tick=False):
            assert sessions.find(token) is None
            db.session.rollback()
        with time_machine.travel(start + longest + timedelta(minutes=1), tick=False):
            assert sessions.find(token) is None
            sessions.forget_ended()
            assert db.session.query(LoginSession).count() == 0


def test_the_attempt_keeps_whether_to_remember(app: Flask, alice: Person) -> None:
    secret, _ = add_app(alice)
    token = sign_in.with_code(begin(alice, remembered=True), code_of(secret), **WHERE)
    assert session_of(token).remembered


# ---- a new place


def test_a_sign_in_from_a_new_place_is_told_of(app: Flask, alice: Person) -> None:
    confirm_address(alice)

    def come(address: str, client: str) -> None:
        user = user_of(alice)
        sign_in.first_factor_done(user, methods=["password"], remembered=False, address=address, client=client)

    come("203.0.113.5", "browser")
    assert subjects() == []
    come("203.0.113.5", "browser")
    assert subjects() == []
    come("203.0.113.6", "browser")
    come("203.0.113.6", "another")
    assert subjects() == ["New sign-in"] * 2
    come("2001:db8:1:2::7", "browser")
    come("2001:db8:1:2:ffff::8", "browser")
    assert subjects() == ["New sign-in"] * 3
    with time_machine.travel(now() + timedelta(days=91), tick=False):
        come("203.0.113.5", "browser")
    assert subjects() == ["New sign-in"] * 4
