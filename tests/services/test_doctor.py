"""What doctor says of an installation."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models import MasterKeyUse, ProviderKey
from services import doctor, provider_keys
from services.parts import parts
from services.rate_limits import StoreUnavailable
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
    }


def failures(*, outside: bool = False) -> dict[str, str]:
    return {title: finding.words for title, finding in doctor.examine(outside=outside) if not finding.good}


def save(person: Person) -> ProviderKey:
    return provider_keys.save(person.workspace, "openai", Secret("sk-x"), actor=person.actor, check=False)


def test_a_sound_installation_has_nothing_to_complain_of(app: Flask, alice: Person) -> None:
    save(alice)
    found = list(doctor.examine())
    assert failures() == {}
    assert [title for title, _ in found] == [
        "database", "schema", "limits", "vault", "master key", "audit log", "key files", "key files", "disk",
    ]  # fmt: skip
    assert dict(found)["vault"].words == "all 1 sealed secrets can be decrypted"


def test_each_fault_is_found_and_named(
    app: Flask, alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(charlie)
    save(alice).sealed = "v1.00000000.AAAA.AAAA"
    db.session.commit()
    path = Path(app.instance_path) / "master_key"
    path.chmod(0o640)
    db.session.get_one(MasterKeyUse, parts().vault.active_key_id).seals = 2**32
    db.session.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    db.session.commit()

    def fail(*_given: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(type(parts().limits), "peek", fail)
    monkeypatch.setattr(doctor, "_LEAST_FREE_BYTES", 10**18)
    found = failures()
    assert set(found) == {"schema", "limits", "vault", "master key", "key files", "disk"}
    assert found["vault"] == "alice: the openai key cannot be decrypted; it has to be saved again"
    assert found["key files"] == f"master_key has mode 0640, so others may read it: run `chmod 600 {path}`"
    assert found["schema"].startswith("at 0002, not at ")


def test_a_database_that_does_not_answer_fails_its_checks_and_not_the_command(app: Flask) -> None:
    db.session.execute(text("DROP TABLE provider_key"))
    db.session.execute(text("DROP TABLE master_key_use"))
    db.session.commit()
    found = failures()
    assert set(found) == {"vault", "master key"}
    assert all(words.startswith("could not be checked: ") for words in found.values())


def test_the_providers_are_asked_only_when_that_is_wanted(app: Flask, provider: FakeProvider) -> None:
    assert failures() == {}
    assert provider.requests == []
    assert failures(outside=True) == {}
    assert len(provider.requests) == 2
    with provider.outage():
        assert failures(outside=True) == {"providers": "OpenRouter cannot be reached: the connection failed"}
