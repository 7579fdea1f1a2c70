"""Passkeys: real signatures of a device in software, and every answer that must prove nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask

from extensions import db
from models import AuditEvent, LoginSession, Passkey, RecoveryCode, SignInAttempt, User
from models.base import now, transaction
from services import passkeys, proof, second_factor, sessions, sign_in, sign_in_attempts
from services.errors import InvalidInput, InvalidRequest, NotFound, WrongCredentials
from services.passkeys import PasskeyRefused
from services.relying_party import RelyingParty, relying_party
from services.secret import Secret
from services.sign_in import SignInOver
from tests.authenticator import Authenticator, decoded, encoded
from tests.factors import WHERE, add_app, add_passkey, confirm_address, subjects, user_of
from tests.people import PASSWORD, Person


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"ARKA_PUBLIC_URL": "http://localhost:5000"}


def sign_in_with(device: Authenticator, **more: Any) -> LoginSession:
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    return come(token, device.use(options, **more))


def come(token: Secret, answer: str) -> LoginSession:
    found = sessions.find(sign_in.with_passkey(token, answer, remembered=False, **WHERE))
    assert found is not None
    return found


def begin(person: Person) -> Secret:
    step = sign_in.first_factor_done(user_of(person), methods=["password"], remembered=False, **WHERE)
    assert step.attempt is not None
    return step.attempt


# ---- making


def test_a_passkey_is_a_second_factor_and_brings_recovery_codes(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    device, user = Authenticator(backed_up=True), user_of(alice)
    token, options = passkeys.begin_registration(user)
    asked = json.loads(options)
    assert asked["rp"] == {"name": "ARKA", "id": "localhost"}
    assert asked["authenticatorSelection"]["userVerification"] == "required"
    assert asked["authenticatorSelection"]["residentKey"] == "preferred"
    passkey, codes = passkeys.register(user, token, device.make(options), " My  laptop ", alice.actor)
    assert (passkey.name, passkey.backed_up, passkey.transports) == ("My laptop", True, ["internal"])
    assert len(codes) == 10
    assert second_factor.is_on(user)
    assert subjects() == ["A passkey was added", "Two-factor authentication is on"]


def test_a_second_passkey_brings_no_codes_and_a_known_device_is_left_out(app: Flask, alice: Person) -> None:
    device, user = add_passkey(alice), user_of(alice)
    token, options = passkeys.begin_registration(user)
    assert [decoded(one["id"]) for one in json.loads(options)["excludeCredentials"]] == list(device.keys)
    assert passkeys.register(user, token, Authenticator().make(options), "Phone", alice.actor)[1] == []
    assert db.session.query(RecoveryCode).count() == 10


WRONG_REGISTRATIONS = (
    lambda device, options: Authenticator(origin="https://evil.example").make(options),
    lambda device, options: Authenticator(origin="http://localhost:5001").make(options),
    lambda device, options: Authenticator(origin="http://127.0.0.1:5000").make(options),
    lambda device, options: device.make(options, rp_id="evil.example"),
    lambda device, options: Authenticator(verifies=False).make(options),
    lambda device, options: device.make(json.dumps(json.loads(options) | {"challenge": encoded(b"x" * 64)})),
    lambda device, options: "",
    lambda device, options: "null",
    lambda device, options: "[" * 9000,
    lambda device, options: '{"response": {}}',
    lambda device, options: '{"id": "a", "rawId": "a", "type": "public-key", "response": {"clientDataJSON": 1}}',
    lambda device, options: "x" * 30_000,
)


def test_nothing_is_registered_by_a_wrong_answer(app: Flask, alice: Person) -> None:
    for spoil in WRONG_REGISTRATIONS:
        token, options = passkeys.begin_registration(user_of(alice))
        with pytest.raises(InvalidInput):
            passkeys.register(user_of(alice), token, spoil(Authenticator(), options), "Laptop", alice.actor)
    assert passkeys.of_user(user_of(alice)) == []
    assert not second_factor.is_on(user_of(alice))


def test_a_registration_is_answered_once_by_who_began_it_and_in_time(
    app: Flask, alice: Person, charlie: Person
) -> None:
    device, user = Authenticator(), user_of(alice)
    token, options = passkeys.begin_registration(user)
    answer = device.make(options)
    with pytest.raises(InvalidInput):
        passkeys.register(user_of(charlie), token, answer, "Mine", charlie.actor)
    with pytest.raises(InvalidInput):
        passkeys.register(user, token, answer, "Mine", alice.actor)
    token, options = passkeys.begin_registration(user)
    with time_machine.travel(now() + timedelta(minutes=11), tick=False), pytest.raises(InvalidInput):
        passkeys.register(user, token, device.make(options), "Mine", alice.actor)
    token, options = passkeys.begin_registration(user)
    passkeys.register(user, token, device.make(options), "Mine", alice.actor)
    with pytest.raises(InvalidInput):
        passkeys.register(user, token, device.make(options), "Mine", alice.actor)
    assert len(passkeys.of_user(user)) == 1


def test_a_passkey_belongs_to_one_person(app: Flask, alice: Person, charlie: Person) -> None:
    device = add_passkey(alice)
    known = next(iter(device.keys))

    class Copier(Authenticator):
        def _answer(self, credential_id: bytes, response: dict[str, Any]) -> str:
            made = json.loads(super()._answer(known, response))
            attested = decoded(response["attestationObject"]).replace(credential_id, known)
            made["response"]["attestationObject"] = encoded(attested)
            return json.dumps(made)

    token, options = passkeys.begin_registration(user_of(charlie))
    with pytest.raises(InvalidInput, match="known already"):
        passkeys.register(user_of(charlie), token, Copier().make(options), "Stolen", charlie.actor)
    assert sign_in_with(device).user_id == alice.user_id


def test_a_passkey_needs_a_name(app: Flask, alice: Person) -> None:
    add_passkey(alice)
    (passkey,) = passkeys.of_user(user_of(alice))
    for name in ("", "   ", "x" * 61):
        token, options = passkeys.begin_registration(user_of(alice))
        with pytest.raises(InvalidInput):
            passkeys.register(user_of(alice), token, Authenticator().make(options), name, alice.actor)
        with pytest.raises(InvalidInput):
            passkeys.rename(user_of(alice), passkey.id, name, alice.actor)


def test_others_passkeys_are_not_found(app: Flask, alice: Person, charlie: Person) -> None:
    add_passkey(alice)
    (passkey,) = passkeys.of_user(user_of(alice))
    for act in (
        lambda: passkeys.rename(user_of(charlie), passkey.id, "Mine", charlie.actor),
        lambda: passkeys.delete(user_of(charlie), passkey.id, charlie.actor, password=Secret(PASSWORD)),
    ):
        with pytest.raises(NotFound):
            act()


# ---- signing in


def test_a_passkey_alone_signs_in(app: Flask, alice: Person, bob: Person) -> None:
    add_passkey(bob)
    device = add_passkey(alice)
    session = sign_in_with(device)
    assert session.user_id == alice.user_id
    assert session.methods == ["passkey"]
    assert passkeys.of_user(user_of(alice))[0].last_used_at is not None
    assert sign_in_with(device).user_id == alice.user_id


def test_a_passkey_is_the_second_step_of_its_owner_alone(app: Flask, alice: Person, charlie: Person) -> None:
    mine, theirs = add_passkey(alice), add_passkey(charlie)
    attempt = begin(alice)
    token, options = sign_in.passkey_options(attempt)
    assert [decoded(one["id"]) for one in json.loads(options)["allowCredentials"]] == list(mine.keys)
    with pytest.raises(PasskeyRefused):
        sign_in.with_passkey_second(attempt, token, theirs.use(options), **WHERE)
    token, options = sign_in.passkey_options(attempt)
    found = sessions.find(sign_in.with_passkey_second(attempt, token, mine.use(options), **WHERE))
    assert found is not None
    assert found.methods == ["password", "passkey"]
    with pytest.raises(SignInOver):
        sign_in.passkey_options(attempt)


def refused(token: Secret | None, answer: str) -> None:
    with pytest.raises(PasskeyRefused):
        sign_in.with_passkey(token, answer, remembered=False, **WHERE)
    assert db.session.query(LoginSession).count() == 0


def test_another_origin_is_refused(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    for origin in ("https://evil.example", "http://localhost:5001", "http://127.0.0.1:5000", ""):
        device.origin = origin
        token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
        refused(token, device.use(options))


def test_another_relying_party_is_refused(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    refused(token, device.use(options, rp_id="evil.example"))


def test_a_device_that_did_not_verify_the_person_is_refused(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    device.verifies = False
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    refused(token, device.use(options))


def test_a_wrong_signature_is_refused(app: Flask, alice: Person) -> None:
    device, other = add_passkey(alice), Authenticator()
    other.make(passkeys.begin_registration(user_of(alice))[1])
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    known = next(iter(device.keys))
    device.keys[known] = next(iter(other.keys.values()))
    refused(token, device.use(options))


def test_a_challenge_is_answered_once_even_when_refused(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    answer = device.use(options)
    come(token, answer)
    with pytest.raises(PasskeyRefused):
        come(token, answer)
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    with pytest.raises(PasskeyRefused):
        come(token, "{}")
    with pytest.raises(PasskeyRefused):
        come(token, device.use(options))


def test_a_challenge_is_for_one_purpose_and_lasts_ten_minutes(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    attempt = begin(alice)
    token, options = sign_in.passkey_options(attempt)
    refused(token, device.use(options))
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    with pytest.raises(PasskeyRefused):
        sign_in.with_passkey_second(attempt, token, device.use(options), **WHERE)
    token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
    with time_machine.travel(now() + timedelta(minutes=11), tick=False):
        refused(token, device.use(options))
    refused(None, device.use(options))
    token, _ = passkeys.begin_use(passkeys.SIGN_IN, None)
    refused(token, device.use(options))


WRONG_ANSWERS = (
    lambda answer: "",
    lambda answer: "7",
    lambda answer: json.dumps({**answer, "rawId": 7}),
    lambda answer: json.dumps({**answer, "rawId": "\ud800"}),
    lambda answer: json.dumps({**answer, "id": "other"}),
    lambda answer: json.dumps({**answer, "type": "password"}),
    lambda answer: json.dumps({**answer, "response": []}),
    lambda answer: json.dumps({**answer, "response": {**answer["response"], "userHandle": [1]}}),
    lambda answer: json.dumps({**answer, "response": {**answer["response"], "userHandle": encoded(b"usr_other")}}),
    lambda answer: json.dumps({**answer, "response": {**answer["response"], "authenticatorData": "AAAA"}}),
    lambda answer: json.dumps({**answer, "response": {**answer["response"], "clientDataJSON": "e30"}}),
    lambda answer: json.dumps({**answer, "response": {**answer["response"], "signature": ""}}),
)


def test_what_is_no_answer_proves_nothing(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    for spoil in WRONG_ANSWERS:
        token, options = passkeys.begin_use(passkeys.SIGN_IN, None)
        refused(token, spoil(json.loads(device.use(options))))


def test_a_count_that_goes_back_is_refused_and_told_of(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    device = add_passkey(alice)
    device.count = 7
    sign_in_with(device)
    for count in (7, 3):
        device.count = count - 1
        with pytest.raises(PasskeyRefused):
            sign_in_with(device)
    assert subjects().count("A passkey was refused") == 2
    event = db.session.query(AuditEvent).filter_by(action="user:passkey_copied").order_by(AuditEvent.id).first()
    assert event is not None
    assert event.details == {"passkey": "Laptop", "count": 7, "known": 8}
    device.count = 8
    assert sign_in_with(device)


def test_a_closed_account_has_no_way_in(app: Flask, alice: Person) -> None:
    device = add_passkey(alice)
    with transaction() as session:
        session.get_one(User, alice.user_id).closed_at = now()
    with pytest.raises(WrongCredentials):
        sign_in_with(device)
    assert db.session.query(LoginSession).count() == 0


def test_a_deleted_passkey_opens_nothing(app: Flask, alice: Person) -> None:
    confirm_address(alice)
    device = add_passkey(alice)
    add_app(alice)
    (passkey,) = passkeys.of_user(user_of(alice))
    passkeys.rename(user_of(alice), passkey.id, "Old laptop", alice.actor)
    passkeys.delete(user_of(alice), passkey.id, alice.actor, password=None)
    with pytest.raises(PasskeyRefused):
        sign_in_with(device)
    assert subjects()[-1] == "A passkey was deleted"
    assert second_factor.standing(user_of(alice)).codes_left == 10


def test_the_last_factor_goes_only_with_the_password(app: Flask, alice: Person) -> None:
    add_passkey(alice)
    (passkey,) = passkeys.of_user(user_of(alice))
    with pytest.raises(InvalidInput):
        passkeys.delete(user_of(alice), passkey.id, alice.actor, password=Secret("wrong one here"))
    passkeys.delete(user_of(alice), passkey.id, alice.actor, password=Secret(PASSWORD))
    assert not second_factor.is_on(user_of(alice))
    assert db.session.query(Passkey).count() == db.session.query(RecoveryCode).count() == 0


def test_a_passkey_proves_again_who_is_there(app: Flask, alice: Person, charlie: Person) -> None:
    mine, theirs = add_passkey(alice), add_passkey(charlie)
    session = sign_in_with(mine)
    with time_machine.travel(now() + timedelta(minutes=16), tick=False):
        assert not proof.is_recent(session)
        token, options = proof.passkey_options(session)
        with pytest.raises(PasskeyRefused):
            proof.with_passkey(session, token, theirs.use(options), charlie.actor)
        assert not proof.is_recent(session)
        token, options = proof.passkey_options(session)
        proof.with_passkey(session, token, mine.use(options), alice.actor)
        assert proof.is_recent(session)


def test_challenges_are_forgotten(app: Flask, alice: Person) -> None:
    passkeys.begin_use(passkeys.SIGN_IN, None)
    sign_in_attempts.forget_old()
    assert db.session.query(SignInAttempt).count() == 1
    with time_machine.travel(now() + timedelta(minutes=11), tick=False):
        sign_in_attempts.forget_old()
    assert db.session.query(SignInAttempt).count() == 0


# ---- where they are possible


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://localhost:5000", RelyingParty("localhost", "http://localhost:5000", "ARKA")),
        ("https://Portal.Example", RelyingParty("portal.example", "https://portal.example", "ARKA")),
        ("https://portal.example:443/", RelyingParty("portal.example", "https://portal.example", "ARKA")),
        ("https://portal.example:8443", RelyingParty("portal.example", "https://portal.example:8443", "ARKA")),
        ("http://portal.example", None),
        ("http://127.0.0.1:5000", None),
        ("https://192.0.2.7", None),
        ("https://[2001:db8::1]", None),
    ],
)
def test_passkeys_need_https_or_localhost_and_a_name(url: str, found: RelyingParty | None) -> None:
    assert relying_party(url, "ARKA") == found


class TestWithoutASecureAddress:
    @pytest.fixture
    def environment(self, environment: dict[str, str]) -> dict[str, str]:
        return environment | {"ARKA_PUBLIC_URL": "http://portal.example"}

    def test_nothing_is_begun(self, app: Flask, alice: Person) -> None:
        assert not passkeys.are_possible()
        with pytest.raises(InvalidRequest):
            passkeys.begin_registration(user_of(alice))
        with pytest.raises(InvalidRequest):
            passkeys.begin_use(passkeys.SIGN_IN, None)
