"""What doctor says of an installation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models import MasterKeyUse, ProviderKey
from services import doctor, provider_keys
from services.parts import parts
from services.rate_limit_storage import SQLiteStorage
from services.rate_limits import RateLimits, storage_from_uri
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.processes import ReservedPort
from tests.people import Person
from tests.services.limit_worker import NOBODY


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

    monkeypatch.setattr(doctor, "_LEAST_FREE_BYTES", 10**18)
    found = failures()
    assert set(found) == {"schema", "vault", "master key", "key files", "disk"}
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


def of_limits() -> doctor.Finding:
    return next(finding for title, finding in doctor.examine() if title == "limits")


@pytest.mark.parametrize(
    ("fallback", "meanwhile"), [("memory", "each process counts in its own memory"), ("refuse", "calls get 503")]
)
def test_a_storage_of_limits_that_is_away_is_found_whatever_is_done_meanwhile(
    environment: dict[str, str], request: pytest.FixtureRequest, fallback: str, meanwhile: str
) -> None:
    port = ReservedPort()
    try:
        environment |= {
            "ARKA_RATELIMIT_STORAGE_URI": f"redis://127.0.0.1:{port.number}",
            "ARKA_RATELIMIT_FALLBACK": fallback,
        }
        request.getfixturevalue("app")
        found = of_limits()
    finally:
        port.release()
    assert found == doctor.Finding(False, f"the storage of the rate limits does not count; meanwhile {meanwhile}")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may use, unlike those of tests."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_file_of_limits_that_cannot_be_written_is_found(
    environment: dict[str, str], open_folder: Path, request: pytest.FixtureRequest
) -> None:
    environment["ARKA_RATELIMIT_STORAGE_URI"] = uri = f"sqlite:///{open_folder}/limits.db"
    request.getfixturevalue("app")
    storage = storage_from_uri(uri)
    assert RateLimits(storage).hit("name", 1).allowed
    assert isinstance(storage, SQLiteStorage)
    storage.close()
    (open_folder / "limits.db").chmod(0o444)
    before = os.geteuid()
    if before == 0:
        # To root nothing is read-only.
        os.seteuid(NOBODY)
    try:
        found = of_limits()
    finally:
        os.seteuid(before)
    assert not found.good
    assert "does not count" in found.words


def test_the_providers_are_asked_only_when_that_is_wanted(app: Flask, provider: FakeProvider) -> None:
    assert failures() == {}
    assert provider.requests == []
    assert failures(outside=True) == {}
    assert len(provider.requests) == 2
    with provider.outage():
        assert failures(outside=True) == {"providers": "OpenRouter cannot be reached: the connection failed"}
