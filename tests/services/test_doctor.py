"""What doctor says of an installation."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

import config
from app import create_app
from extensions import db
from models import MasterKeyUse, ProviderKey
from services import audit, audit_checks, doctor, keys, provider_keys
from services.parts import parts
from services.rate_limit_storage import SQLiteStorage
from services.rate_limits import RateLimits, storage_from_uri
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.processes import ReservedPort
from tests.people import Person, bearer, make_person
from tests.services.limit_worker import NOBODY

Mint = Callable[..., keys.Minted]


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
        "database", "schema", "signing key", "limits", "vault", "master key", "audit log", "key files", "key files",
        "disk",
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


@contextlib.contextmanager
def without_the_signing_key(environment: dict[str, str]) -> Iterator[None]:
    """The portal as it starts when its key file is gone: with a new one, which it makes without a word."""
    (Path(environment["ARKA_INSTANCE_PATH"]) / "secret_key").unlink()
    app = create_app(config.load(environment))
    app.testing = True
    with app.app_context():
        try:
            yield
        finally:
            db.session.remove()
            db.engine.dispose()
            parts().quick.close()


def test_another_signing_key_than_the_data_was_made_with_is_found(
    app: Flask, environment: dict[str, str], alice: Person, charlie: Person, mint: Mint
) -> None:
    key = bearer(mint().secret)
    assert app.test_client().get("/v1/models", headers=key).status_code == 200
    with without_the_signing_key(environment):
        assert parts().key_digests.digest("x") != app.extensions["arka"].key_digests.digest("x")
        found = failures()
        assert set(found) == {"signing key", "audit log"}
        assert found["signing key"].startswith(
            "it is not the one that what is here was made with, so no API key from then works"
        )
        # Whoever goes on with it finds out as well.
        make_person("dora@late.example")
        told = failures()["signing key"]
        assert told.startswith("it is not the one that 2 of the 3 oldest workspaces were made with, unless their")
        # When it is lost for good, and the operator has said so.
        assert audit.seal(anew=True) == []
        assert failures() == {}


def test_a_beginning_that_was_changed_does_not_speak_against_the_signing_key_alone(
    app: Flask, alice: Person, charlie: Person
) -> None:
    db.session.execute(
        text("UPDATE audit_event SET actor_name = 'mallory' WHERE number = 1 AND workspace_id = :id"),
        {"id": alice.workspace_id},
    )
    db.session.commit()
    told = failures()["signing key"]
    assert told.startswith("it is not the one that 1 of the 2 oldest workspaces were made with, ")
    assert "unless their audit logs were changed" in told


def test_the_signing_key_of_an_empty_portal_is_as_good_as_any(app: Flask) -> None:
    assert dict(doctor.examine())["signing key"] == doctor.Finding(True, "nothing was made with one yet")


def test_a_log_that_was_changed_since_it_was_last_verified_is_not_called_sound(
    app: Flask, alice: Person, charlie: Person
) -> None:
    while audit_checks.verify_next():
        pass
    assert dict(doctor.examine())["audit log"] == doctor.Finding(True, "as it was written")
    db.session.execute(
        text("UPDATE audit_event SET actor_name = 'mallory' WHERE number = 1 AND workspace_id = :id"),
        {"id": alice.workspace_id},
    )
    db.session.commit()
    assert failures()["audit log"] == "entry 1 of the workspace alice is missing or was changed"


def test_whatever_goes_wrong_in_a_check_is_a_finding_without_its_words(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confused(*_arguments: object) -> Iterator[doctor.Finding]:
        raise ValueError("invalid literal for int() with base 10: 'hush-hush'")
        yield

    monkeypatch.setattr(audit, "first_breaks", confused)
    found = failures()
    assert found == {"audit log": "could not be checked: ValueError"}


def test_an_address_of_a_provider_that_cannot_be_read_is_a_finding(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = request.getfixturevalue("app")
    odd = dataclasses.replace(parts().providers["openai"], base_url="http://127.0.0.1:abc/v1")
    monkeypatch.setitem(parts().providers, "openai", odd)
    result = app.test_cli_runner().invoke(args=["doctor", "--providers"])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert failed == ["FAIL  providers: OpenAI could not be checked: ValueError"]
    # The others are asked nevertheless.
    assert "OpenRouter answers" in result.stdout


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
    assert not (open_folder / "limits.db.damaged").exists()


def test_the_providers_are_asked_only_when_that_is_wanted(app: Flask, provider: FakeProvider) -> None:
    assert failures() == {}
    assert provider.requests == []
    assert failures(outside=True) == {}
    assert len(provider.requests) == 2
    with provider.outage():
        assert failures(outside=True) == {"providers": "OpenRouter cannot be reached: the connection failed"}
