"""Keys in a bad state are looked at again, now and then, and heal by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from flask import Flask

from extensions import db
from models import ProviderKey
from models.base import now
from services import provider_keys
from services.provider_keys import note_outcome
from services.provider_upkeep import AGAIN_AFTER, check_again
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, make_person


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
    }


@pytest.fixture
def clock(app: Flask) -> Iterator[time_machine.Coordinates]:
    with time_machine.travel(now(), tick=False) as clock:
        yield clock


def save(person: Person, key: str, name: str = "openai") -> None:
    provider_keys.save(person.workspace, name, Secret(key), actor=person.actor, check=False)


def row_of(person: Person) -> ProviderKey:
    db.session.rollback()
    return db.session.query(ProviderKey).filter_by(workspace_id=person.workspace_id).one()


def test_every_bad_state_heals_when_its_time_has_come_and_not_before(
    app: Flask, alice: Person, provider: FakeProvider, clock: time_machine.Coordinates
) -> None:
    save(alice, provider.good_key)
    for state, pause in AGAIN_AFTER.items():
        clock.shift(timedelta(days=1))
        note_outcome(alice.workspace_id, provider_keys.connected(alice.workspace_id)["openai"], state, "Their words")
        clock.shift(pause - timedelta(seconds=1))
        provider.requests.clear()
        assert check_again() is False
        assert (row_of(alice).state, provider.requests) == (state, [])
        clock.shift(2)
        check_again()
        row = row_of(alice)
        assert (row.state, row.state_words, row.checked_at) == ("valid", None, now())
    clock.shift(timedelta(days=30))
    provider.requests.clear()
    check_again()
    assert provider.requests == []


def test_a_key_that_is_still_bad_waits_for_its_next_turn(
    app: Flask, alice: Person, provider: FakeProvider, clock: time_machine.Coordinates
) -> None:
    save(alice, provider.broke_key)
    clock.shift(timedelta(minutes=3))
    check_again()
    assert row_of(alice).state == "no_credit"
    asked = len(provider.requests)
    clock.shift(timedelta(minutes=14))
    check_again()
    assert len(provider.requests) == asked
    clock.shift(timedelta(minutes=2))
    check_again()
    assert len(provider.requests) == 2 * asked


def test_an_outage_does_not_change_what_is_known_of_a_bad_key(
    app: Flask, alice: Person, provider: FakeProvider, clock: time_machine.Coordinates
) -> None:
    save(alice, "sk-wrong-key-0123456789")
    clock.shift(timedelta(minutes=3))
    with provider.outage():
        check_again()
        assert row_of(alice).state == "unreachable"
    clock.shift(timedelta(minutes=3))
    check_again()
    assert row_of(alice).state == "invalid"
    clock.shift(timedelta(hours=7))
    with provider.outage():
        check_again()
    row = row_of(alice)
    assert (row.state, row.checked_at) == ("invalid", now())
    assert row.state_words is not None
    assert row.state_words.startswith("Incorrect API key")


def test_a_run_is_bounded_and_says_when_there_is_more(
    app: Flask, provider: FakeProvider, clock: time_machine.Coordinates
) -> None:
    people = [make_person(f"person{number}@northwind.example") for number in range(4)]
    for person in people:
        save(person, provider.good_key)
        clock.shift(1)
    clock.shift(timedelta(minutes=3))
    assert check_again() is True
    assert [row_of(person).state for person in people] == ["valid", "valid", "valid", "unverified"]
    assert check_again() is False
    assert row_of(people[3]).state == "valid"
