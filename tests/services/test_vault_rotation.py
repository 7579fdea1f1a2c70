"""Changing the master key: every row is sealed anew, none is lost, and it can be stopped at any row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from extensions import db
from models import MasterKeyUse, ProviderKey, TotpSecret, WebhookSecret
from models.base import transaction
from services import provider_keys, sealing, second_factor, vault_rotation, webhooks
from services.errors import InvalidRequest, ServiceUnavailable
from services.parts import parts
from services.sealing import MasterKeyUsedUp
from services.secret import Secret
from services.vault import sealed_with
from services.vault_rotation import Tally
from tests.factors import add_app, code_of, user_of
from tests.people import Person, make_person


def save(person: Person, key: str, name: str = "openai") -> None:
    provider_keys.save(person.workspace, name, Secret(key), actor=person.actor, check=False)


def opened(person: Person, name: str = "openai") -> str:
    return provider_keys.unseal(provider_keys.connected(person.workspace_id)[name]).reveal()


@pytest.fixture
def people(app: Flask) -> list[Person]:
    """Four people, each with a provider key of their own."""
    people = [make_person(f"person{number}@northwind.example") for number in range(4)]
    for number, person in enumerate(people):
        save(person, key_of(number))
    return people


def key_of(number: int) -> str:
    return f"sk-of-person-{number}-0123456789"


def current_rows() -> int:
    return vault_rotation.rows_by_key()[parts().vault.active_key_id]


def test_every_row_is_sealed_with_the_new_key_and_opens(app: Flask, people: list[Person]) -> None:
    old = parts().vault.active_key_id
    new = vault_rotation.add_key()
    assert new != old
    told: list[int] = []
    tally = vault_rotation.reseal_all(lambda tally: told.append(tally.seen))
    assert (tally.total, tally.resealed, tally.current, tally.unreadable) == (4, 4, 0, [])
    assert told[-1] == 4
    assert vault_rotation.rows_by_key() == {new: 4}
    assert [opened(person) for person in people] == [key_of(number) for number in range(4)]


def test_a_second_run_changes_nothing(app: Flask, people: list[Person]) -> None:
    vault_rotation.add_key()
    vault_rotation.reseal_all()
    records = db.session.query(ProviderKey.sealed).order_by(ProviderKey.id).all()
    tally = vault_rotation.reseal_all()
    assert (tally.resealed, tally.current) == (0, 4)
    assert db.session.query(ProviderKey.sealed).order_by(ProviderKey.id).all() == records


@pytest.mark.parametrize("at_once", [1, 3])
def test_interrupted_at_any_row_and_run_again_it_ends_complete(
    app: Flask, people: list[Person], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(vault_rotation, "_ROWS_AT_ONCE", at_once)
    for stop_after in range(4):
        vault_rotation.add_key()
        with pytest.raises(KeyboardInterrupt):
            interrupted(stop_after, monkeypatch)
        assert current_rows() == stop_after // at_once * at_once
        assert [opened(person) for person in people] == [key_of(number) for number in range(4)]
        vault_rotation.reseal_all()
        assert current_rows() == 4
    assert [opened(person) for person in people] == [key_of(number) for number in range(4)]


def interrupted(stop_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a rotation that is stopped after so many seals."""
    seal, done = sealing.seal, iter(range(stop_after))

    def seal_or_stop(secret: Secret, place: str) -> str:
        if next(done, None) is None:
            raise KeyboardInterrupt
        return seal(secret, place)

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "seal", seal_or_stop)
        vault_rotation.reseal_all()


def test_a_row_changed_meanwhile_is_not_overwritten(
    app: Flask, people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another record comes into the row between the look at it and the seal, as on PostgreSQL it can."""
    vault_rotation.add_key()
    changed = people[3]
    seal = sealing.seal

    def seal_late(secret: Secret, place: str) -> str:
        if changed.workspace_id in place:
            row = db.session.query(ProviderKey).filter_by(workspace_id=changed.workspace_id).one()
            record = parts().vault.seal(Secret("sk-saved-meanwhile"), place)
            db.session.execute(update(ProviderKey).where(ProviderKey.id == row.id).values(sealed=record))
        return seal(secret, place)

    monkeypatch.setattr(sealing, "seal", seal_late)
    tally = vault_rotation.reseal_all()
    assert (tally.resealed, tally.current) == (3, 1)
    assert opened(changed) == "sk-saved-meanwhile"


def test_a_row_that_cannot_be_decrypted_is_named_and_does_not_stop_the_others(app: Flask, people: list[Person]) -> None:
    row = db.session.query(ProviderKey).filter_by(workspace_id=people[2].workspace_id).one()
    row.sealed = db.session.query(ProviderKey).filter_by(workspace_id=people[1].workspace_id).one().sealed
    db.session.commit()
    vault_rotation.add_key()
    tally = vault_rotation.reseal_all()
    assert (tally.resealed, tally.current) == (3, 0)
    assert tally.unreadable == [f"{people[2].slug}: the openai key cannot be decrypted; it has to be saved again"]
    db.session.expire_all()
    assert row.state == "cannot_decrypt"
    # No key opens it, so none has to be kept for it.
    assert vault_rotation.forget_old_keys() == 1


@contextmanager
def another_process(environment: dict[str, str]) -> Iterator[None]:
    """A process of the same instance, which knows the keys that are in its file now and no others."""
    from app import create_app
    from config import load

    with create_app(load(environment)).app_context():
        try:
            yield
        finally:
            db.session.remove()
            db.engine.dispose()
            parts().quick.close()


def test_a_running_process_opens_and_seals_with_a_key_that_another_one_added(
    app: Flask, people: list[Person], environment: dict[str, str]
) -> None:
    with another_process(environment):
        new = vault_rotation.add_key()
        vault_rotation.reseal_all()
    save(people[1], "sk-saved-afterwards")
    assert vault_rotation.rows_by_key() == {new: 4}
    assert opened(people[0]) == key_of(0)


def test_an_old_key_is_not_forgotten_while_a_row_needs_it(app: Flask, people: list[Person]) -> None:
    vault_rotation.add_key()
    with pytest.raises(InvalidRequest, match="4 secrets are still sealed with an old key"):
        vault_rotation.forget_old_keys()
    file = parts().vault.file
    assert file is not None
    assert len(file.read()) == 2
    vault_rotation.reseal_all()
    assert vault_rotation.forget_old_keys() == 1
    assert len(file.read()) == 1
    assert vault_rotation.forget_old_keys() == 0
    assert opened(people[0]) == key_of(0)


def add_webhook(person: Person) -> webhooks.Minted:
    return webhooks.create(person.workspace, actor=person.actor, url="https://hooks.example/")


def test_authenticator_apps_and_webhooks_work_on_without_the_old_key(
    app: Flask, alice: Person, environment: dict[str, str]
) -> None:
    shared, _ = add_app(alice)
    signing = add_webhook(alice)
    endpoint_id = signing.endpoint.id
    vault_rotation.add_key()
    vault_rotation.reseal_all()
    vault_rotation.forget_old_keys()
    db.session.remove()
    with another_process(environment):
        assert vault_rotation.unreadable() == []
        used = second_factor.take(
            user_of(alice), code_of(shared), alice.actor, then=lambda way: way, note_wrong=lambda: None
        )
        assert used == "totp"
        assert webhooks.signing_secrets(webhooks.get(alice.workspace, endpoint_id)) == [signing.secret]


@pytest.mark.parametrize("add", [add_app, add_webhook])
def test_an_old_key_is_not_forgotten_while_an_app_or_a_webhook_needs_it(
    app: Flask, alice: Person, add: Callable[[Person], object]
) -> None:
    add(alice)
    vault_rotation.add_key()
    with pytest.raises(InvalidRequest, match="1 secrets are still sealed with an old key"):
        vault_rotation.forget_old_keys()
    assert vault_rotation.reseal_all() == Tally(total=1, resealed=1)
    assert vault_rotation.forget_old_keys() == 1


def test_a_damaged_secret_of_an_app_or_a_webhook_is_named_with_what_to_do(app: Flask, alice: Person) -> None:
    add_app(alice)
    endpoint_id = add_webhook(alice).endpoint.id
    with transaction() as session:
        for model in (TotpSecret, WebhookSecret):
            session.execute(update(model).values(sealed="v1.00000000.AAAA.AAAA"))
    sentences = [
        "alice@northwind.example: the secret of the authenticator app cannot be decrypted; the app has to be removed "
        "and set up anew",
        f"alice: a signing secret of the webhook {endpoint_id} cannot be decrypted; it has to be rotated, without 24 "
        "more hours for the old one",
    ]
    assert vault_rotation.unreadable() == sentences
    assert vault_rotation.reseal_all().unreadable == sentences


def test_every_seal_is_counted_with_its_key_and_one_that_is_not_kept_is_not(app: Flask, alice: Person) -> None:
    name = parts().vault.active_key_id
    save(alice, "sk-first")
    save(alice, "sk-second")
    assert sealing.seals_of(name) == 2
    with pytest.raises(OperationalError):
        seal_and_fail()
    assert sealing.seals_of(name) == 2
    new = vault_rotation.add_key()
    vault_rotation.reseal_all()
    assert (sealing.seals_of(name), sealing.seals_of(new)) == (2, 1)


def seal_and_fail() -> None:
    with transaction():
        sealing.seal(Secret("sk-third"), "nowhere")
        raise OperationalError("the disk is full", None, Exception())


def test_a_master_key_seals_2_to_the_32_times_and_not_once_more(app: Flask, alice: Person) -> None:
    save(alice, "sk-first")
    name = parts().vault.active_key_id
    use = db.session.get_one(MasterKeyUse, name)
    use.seals = 2**32 - 1
    db.session.commit()
    save(alice, "sk-the-last")
    with pytest.raises(MasterKeyUsedUp):
        save(alice, "sk-one-too-many")
    assert opened(alice) == "sk-the-last"
    assert sealing.seals_of(name) == 2**32
    vault_rotation.add_key()
    save(alice, "sk-with-a-new-key")
    assert opened(alice) == "sk-with-a-new-key"


def test_keys_from_a_setting_are_changed_there(app: Flask, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts().vault, "file", None)
    for act in (vault_rotation.add_key, vault_rotation.forget_old_keys):
        with pytest.raises(InvalidRequest, match="from a setting"):
            act()
    save(alice, "sk-first")
    assert vault_rotation.reseal_all() == Tally(total=1, current=1)
    assert sealed_with(db.session.query(ProviderKey).one().sealed) == parts().vault.active_key_id


def test_nothing_is_sealed_while_the_ring_cannot_be_seen(app: Flask, alice: Person) -> None:
    """The key that this process knows may have been taken out of the ring, and then the secret would be lost."""
    file = parts().vault.file
    assert file is not None
    file.path.rename(file.path.with_suffix(".away"))
    with pytest.raises(ServiceUnavailable):
        provider_keys.save(alice.workspace, "openai", Secret("sk-x"), actor=alice.actor, check=False)
    assert provider_keys.of_workspace(alice.workspace) == []
    file.path.with_suffix(".away").rename(file.path)
    assert provider_keys.save(alice.workspace, "openai", Secret("sk-x"), actor=alice.actor, check=False)
