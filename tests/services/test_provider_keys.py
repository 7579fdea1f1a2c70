"""Provider keys: tested at the provider, sealed, replaced only by a better one."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models import AuditEvent, ProviderKey
from services import provider_keys
from services.errors import InvalidInput
from services.provider_keys import ProviderUnreachable
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
    }


def save(person: Person, name: str, key: str, *, check: bool = True) -> ProviderKey:
    return provider_keys.save(person.workspace, name, Secret(key), actor=person.actor, check=check)


def opened(person: Person, name: str) -> str:
    return provider_keys.unseal(provider_keys.connected(person.workspace_id)[name]).reveal()


@pytest.mark.parametrize("name", ["openai", "openrouter"])
def test_a_good_key_is_tested_and_kept_sealed(app: Flask, alice: Person, provider: FakeProvider, name: str) -> None:
    row = save(alice, name, f"  {provider.good_key}\n")
    assert row.state == "valid"
    assert row.checked_at is not None
    assert provider.requests[-1].key == provider.good_key
    assert opened(alice, name) == provider.good_key
    held = str(
        [tuple(found) for table in db.metadata.tables for found in db.session.execute(text(f'SELECT * FROM "{table}"'))]
    )
    for part in (provider.good_key, provider.good_key[:12], provider.good_key[-12:]):
        assert part not in held


@pytest.mark.parametrize("name", ["openai", "openrouter"])
def test_a_key_the_provider_refuses_is_not_saved(app: Flask, alice: Person, provider: FakeProvider, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"does not accept this key\. It was not saved"):
        save(alice, name, "sk-unknown-key-000000000000")
    assert provider_keys.of_workspace(alice.workspace) == []


def test_the_old_key_stays_until_the_new_one_has_passed(app: Flask, alice: Person, provider: FakeProvider) -> None:
    save(alice, "openai", provider.good_key)
    with pytest.raises(InvalidInput):
        save(alice, "openai", "sk-unknown-key-000000000000")
    provider.fault = "500"
    with pytest.raises(ProviderUnreachable):
        save(alice, "openai", provider.openai_key)
    assert opened(alice, "openai") == provider.good_key
    provider.fault = None
    save(alice, "openai", provider.openai_key)
    assert opened(alice, "openai") == provider.openai_key
    assert db.session.query(ProviderKey).count() == 1
    actions = [entry.action for entry in db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).limit(2)]
    assert actions == ["provider_key:replace", "provider_key:add"]


def test_an_unreachable_provider_is_said_and_the_key_can_be_kept_unverified(
    app: Flask, alice: Person, provider: FakeProvider
) -> None:
    with provider.outage(), pytest.raises(ProviderUnreachable, match="neither right nor wrong"):
        save(alice, "openai", provider.good_key)
    row = save(alice, "openai", provider.good_key, check=False)
    assert (row.state, row.checked_at) == ("unverified", None)


def test_a_restricted_key_is_kept_and_said_to_be_so(app: Flask, alice: Person, provider: FakeProvider) -> None:
    assert save(alice, "openai", provider.restricted_key).state == "restricted"


@pytest.mark.parametrize("key", ["", "  ", "two words", "ключ", "x" * 501, "a\0b"])
def test_what_is_no_key_is_not_sent_anywhere(app: Flask, alice: Person, provider: FakeProvider, key: str) -> None:
    with pytest.raises(InvalidInput):
        save(alice, "openai", key)
    assert provider.requests == []


def test_an_unknown_provider_is_named_with_the_known_ones(app: Flask, alice: Person) -> None:
    with pytest.raises(InvalidInput, match="openai, openrouter"):
        save(alice, "closedai", "sk-x")


def test_a_sealed_key_moved_to_another_workspace_does_not_open(
    app: Flask, alice: Person, charlie: Person, provider: FakeProvider
) -> None:
    from services.errors import ServiceUnavailable

    save(alice, "openai", provider.good_key)
    save(charlie, "openai", provider.openai_key)
    mine, theirs = (
        db.session.query(ProviderKey).filter_by(workspace_id=p.workspace_id).one() for p in (alice, charlie)
    )
    theirs.sealed = mine.sealed
    db.session.commit()
    with pytest.raises(ServiceUnavailable):
        opened(charlie, "openai")
    assert opened(alice, "openai") == provider.good_key
