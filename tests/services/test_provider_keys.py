"""Provider keys: tested at the provider, sealed, replaced only by a better one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models import AuditEvent, ProviderKey, Workspace
from models.quick import DatabaseUnavailable
from services import provider_check, provider_keys, sealing
from services.errors import InvalidInput, NotFound, ServiceUnavailable
from services.parts import parts
from services.provider_check import Finding
from services.provider_keys import ProviderUnreachable, Sealed, note_outcome
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


def test_what_is_no_key_is_not_sent_anywhere(app: Flask, alice: Person, provider: FakeProvider) -> None:
    for key in ("", "  ", "two words", "ключ", "x" * 501, "a\0b"):
        with pytest.raises(InvalidInput):
            save(alice, "openai", key)
    with pytest.raises(InvalidInput, match="at most 60 characters"):
        provider_keys.save(alice.workspace, "openai", Secret("sk-x"), actor=alice.actor, label="x" * 61)
    assert provider.requests == []


def test_a_deleted_key_is_gone_for_the_next_call(app: Flask, alice: Person, provider: FakeProvider) -> None:
    save(alice, "openai", provider.good_key)
    provider_keys.delete(alice.workspace, "openai", actor=alice.actor)
    assert provider_keys.connected(alice.workspace_id) == {}
    with pytest.raises(NotFound):
        provider_keys.delete(alice.workspace, "openai", actor=alice.actor)
    last = db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).limit(1).one()
    assert (last.action, last.object_name) == ("provider_key:delete", "OpenAI")


def test_an_unknown_provider_is_named_with_the_known_ones(app: Flask, alice: Person) -> None:
    with pytest.raises(InvalidInput, match="openai, openrouter"):
        save(alice, "closedai", "sk-x")


def test_a_sealed_key_moved_to_another_workspace_does_not_open(
    app: Flask, alice: Person, charlie: Person, provider: FakeProvider
) -> None:
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


# ---- What calls see


def seen(person: Person, name: str = "openai") -> tuple[str, str | None]:
    """The state and the words that the row holds."""
    db.session.rollback()
    row = db.session.query(ProviderKey).filter_by(workspace_id=person.workspace_id, provider=name).one()
    return row.state, row.state_words


def sealed(person: Person, name: str = "openai") -> Sealed:
    return provider_keys.connected(person.workspace_id)[name]


def test_a_keys_state_follows_what_calls_see_and_heals(app: Flask, alice: Person, provider: FakeProvider) -> None:
    save(alice, "openai", provider.good_key)
    for state in ("no_credit", "restricted", "rate_limited", "invalid", "unreachable", "cannot_decrypt"):
        note_outcome(alice.workspace_id, sealed(alice), state, "Their words")
        assert seen(alice) == (state, "Their words")
        assert sealed(alice).state == state
        note_outcome(alice.workspace_id, sealed(alice), "valid")
        assert seen(alice) == ("valid", None)


def test_what_became_of_an_old_key_says_nothing_of_the_new_one(
    app: Flask, alice: Person, charlie: Person, provider: FakeProvider
) -> None:
    save(alice, "openai", provider.good_key)
    old = sealed(alice)
    save(alice, "openai", provider.openai_key)
    note_outcome(alice.workspace_id, old, "invalid", "Incorrect API key")
    assert seen(alice) == ("valid", None)
    note_outcome(charlie.workspace_id, sealed(alice), "invalid", "Not theirs to say")
    assert seen(alice) == ("valid", None)


def test_the_words_kept_hold_no_part_of_the_key(app: Flask, alice: Person, provider: FakeProvider) -> None:
    key = provider.openai_key
    save(alice, "openai", key)
    masked = f"{key[:8]}****{key[-4:]}"
    words = f"Incorrect API key provided: {masked} ({key[15:25]}), or {key}. See openai.com."
    note_outcome(alice.workspace_id, sealed(alice), "invalid", words)
    assert seen(alice) == ("invalid", "Incorrect API key provided: [key] [key] or [key] See openai.com.")


def test_the_same_state_again_writes_nothing(
    app: Flask, alice: Person, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(alice, "openai", provider.good_key)
    known = sealed(alice)
    monkeypatch.setattr(parts().quick, "run", None)
    note_outcome(alice.workspace_id, known, "valid")


def test_a_state_that_cannot_be_kept_fails_no_call(
    app: Flask, alice: Person, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(alice, "openai", provider.good_key)
    known = sealed(alice)

    def fail(*_given: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(parts().quick, "run", fail)
    note_outcome(alice.workspace_id, known, "invalid")
    assert seen(alice) == ("valid", None)


def test_a_key_that_cannot_be_decrypted_is_shown_as_such(app: Flask, alice: Person, provider: FakeProvider) -> None:
    save(alice, "openai", provider.good_key)
    spoil(alice, "openai")
    with pytest.raises(ServiceUnavailable, match="must save it again"):
        opened(alice, "openai")
    assert seen(alice)[0] == "cannot_decrypt"
    save(alice, "openai", provider.openai_key)
    assert opened(alice, "openai") == provider.openai_key
    assert seen(alice)[0] == "valid"


def spoil(person: Person, name: str) -> None:
    """Replace the last characters of a sealed record."""
    row = db.session.query(ProviderKey).filter_by(workspace_id=person.workspace_id, provider=name).one()
    row.sealed = row.sealed[:-4] + ("AAAA" if not row.sealed.endswith("AAAA") else "BBBB")
    db.session.commit()


# ---- Several at once


def test_two_updates_at_once_leave_one_whole_key(app: Flask, alice: Person, provider: FakeProvider) -> None:
    save(alice, "openai", provider.good_key)
    provider.answer_delay_seconds = 0.05
    actor, workspace_id = alice.actor, alice.workspace_id
    both = threading.Barrier(2)

    def update(key: str) -> None:
        with app.app_context():
            workspace = db.session.get_one(Workspace, workspace_id)
            both.wait(10)
            provider_keys.save(workspace, "openai", Secret(key), actor=actor)
            db.session.remove()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(update, [provider.good_key, provider.openai_key]))
    db.session.rollback()
    assert opened(alice, "openai") in (provider.good_key, provider.openai_key)
    assert seen(alice) == ("valid", None)
    actions = [entry.action for entry in db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).limit(3)]
    assert actions == ["provider_key:replace", "provider_key:replace", "provider_key:add"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_outcome_of_the_old_key_that_comes_in_between_does_not_mark_the_new_one(
    app: Flask, alice: Person, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(alice, "openai", provider.good_key)
    old, seal = sealed(alice), sealing.seal

    def seal_late(secret: Secret, place: str) -> str:
        note_outcome(alice.workspace_id, old, "invalid", "The old key was refused")
        return seal(secret, place)

    monkeypatch.setattr(sealing, "seal", seal_late)
    save(alice, "openai", provider.openai_key)
    assert seen(alice) == ("valid", None)


def test_a_check_of_a_key_that_was_replaced_meanwhile_says_nothing_of_the_new_one(
    app: Flask, alice: Person, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(alice, "openai", provider.good_key)
    ask = provider_check.check

    def replace_and_ask(*given: Any) -> Finding:
        monkeypatch.setattr(provider_check, "check", ask)
        save(alice, "openai", provider.openai_key)
        provider.fault = "401"
        return ask(*given)

    monkeypatch.setattr(provider_check, "check", replace_and_ask)
    assert provider_keys.check_saved(alice.workspace, "openai").state == "valid"
    assert opened(alice, "openai") == provider.openai_key


def test_the_hot_path_is_one_statement(
    app: Flask, alice: Person, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(alice, "openai", provider.good_key)
    save(alice, "openrouter", provider.good_key)
    quick, statements = parts().quick, []
    run = quick._run

    def counting(*given: Any, **more: Any) -> Any:
        statements.append(given)
        return run(*given, **more)

    monkeypatch.setattr(quick, "_run", counting)
    found = provider_keys.connected(alice.workspace_id)
    assert provider_keys.unseal(found["openrouter"]).reveal() == provider.good_key
    note_outcome(alice.workspace_id, found["openrouter"], "valid")
    assert len(statements) == 1
