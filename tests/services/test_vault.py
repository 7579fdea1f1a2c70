"""The vault: sealed for one place, opened only there, and never with the same nonce."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.master_keys import MasterKeyFile
from services.secret import Secret
from services.vault import CannotDecrypt, Vault, key_id, sealed_with

OLD, NEW = os.urandom(32), os.urandom(32)
VAULT = Vault([OLD])


@given(st.text(), st.text())
def test_what_was_sealed_opens_in_its_place(text: str, place: str) -> None:
    assert VAULT.open(VAULT.seal(Secret(text), place), place).reveal() == text


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_record_does_not_open_in_another_place(here: str, there: str) -> None:
    record = VAULT.seal(Secret("sk-provider"), here)
    if here != there:
        with pytest.raises(CannotDecrypt):
            VAULT.open(record, there)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_record_does_not_open(data: st.DataObject) -> None:
    record = VAULT.seal(Secret("sk-provider-key"), "row")
    place = data.draw(st.integers(0, len(record) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != record[place]))
    with pytest.raises(CannotDecrypt):
        VAULT.open(record[:place] + other + record[place + 1 :], "row")


def test_no_byte_of_nonce_ciphertext_or_tag_can_be_changed() -> None:
    """Every bit of every byte, below the base 64 that a changed character already breaks."""
    version, name, *coded = VAULT.seal(Secret("sk-provider-key"), "row").split(".")
    nonce, ciphertext = (base64.urlsafe_b64decode(part + "==") for part in coded)
    sealed = nonce + ciphertext
    assert len(sealed) == 12 + len("sk-provider-key") + 16
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        parts = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (changed[:12], changed[12:])]
        with pytest.raises(CannotDecrypt):
            VAULT.open(".".join([version, name, *parts]), "row")


@given(st.text(max_size=60), st.data())
def test_a_shortened_or_lengthened_record_does_not_open(text: str, data: st.DataObject) -> None:
    record = VAULT.seal(Secret(text), "row")
    shortened = record[: data.draw(st.integers(0, len(record) - 1))]
    lengthened = record + data.draw(st.text(min_size=1, max_size=8))
    for changed in (shortened, lengthened, record[1:]):
        with pytest.raises(CannotDecrypt):
            VAULT.open(changed, "row")


@given(st.lists(st.text(max_size=20), min_size=2, max_size=4, unique=True))
def test_parts_of_two_records_do_not_make_a_third(texts: list[str]) -> None:
    one, two = (VAULT.seal(Secret(text), "row").split(".") for text in texts[:2])
    for mixed in ([*one[:2], two[2], one[3]], [*one[:3], two[3]]):
        with pytest.raises(CannotDecrypt):
            VAULT.open(".".join(mixed), "row")


@pytest.mark.parametrize("record", ["", "...", "v1", "v2.x.y.z", "v1.a.b.c.d", "\0", "v1.é.é.é"])
def test_what_is_no_record_does_not_open(record: str) -> None:
    with pytest.raises(CannotDecrypt):
        VAULT.open(record, "row")


def test_no_two_records_share_a_nonce() -> None:
    nonces = {VAULT.seal(Secret("same"), "same").split(".")[2] for _ in range(10_000)}
    assert len(nonces) == 10_000


def test_a_ring_seals_with_its_first_key_and_opens_with_all() -> None:
    record = VAULT.seal(Secret("sk-provider"), "row")
    ring = Vault([NEW, OLD])
    assert ring.open(record, "row").reveal() == "sk-provider"
    assert ring.seal(Secret("x"), "row").split(".")[1] == Vault([NEW]).active_key_id
    with pytest.raises(CannotDecrypt):
        Vault([NEW]).open(record, "row")


def test_the_failure_tells_nothing_of_the_content() -> None:
    record = VAULT.seal(Secret("sk-canary-canary"), "row")
    with pytest.raises(CannotDecrypt) as caught:
        VAULT.open(record, "elsewhere")
    assert str(caught.value) == ""
    assert caught.value.__cause__ is None
    assert "canary" not in repr(VAULT) + record


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, b""]])
def test_a_vault_without_proper_keys_is_not_made(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(keys)


# ---- The ring's file


@pytest.fixture
def file(tmp_path: Path) -> MasterKeyFile:
    path = tmp_path / "master_key"
    path.write_text(OLD.hex() + "\n")
    path.chmod(0o600)
    return MasterKeyFile(path)


def test_a_new_key_goes_in_front_and_the_old_one_stays(file: MasterKeyFile) -> None:
    file.add_new()
    new, old = file.read()
    assert old == OLD
    assert new not in (OLD, NEW)
    assert len(new) == 32
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["master_key"]
    file.keep_first()
    assert file.read() == (new,)


def test_a_vault_reads_its_file_again_for_a_record_of_a_key_it_does_not_know(file: MasterKeyFile) -> None:
    running, other = Vault(file.read(), file), Vault(file.read(), file)
    file.add_new()
    other.refresh()
    record = other.seal(Secret("sk-provider"), "row")
    assert sealed_with(record) == key_id(file.read()[0]) == other.active_key_id
    assert running.open(record, "row").reveal() == "sk-provider"
    assert running.active_key_id == other.active_key_id


def test_a_key_once_known_opens_until_the_process_ends(file: MasterKeyFile) -> None:
    """A call that read its record before the rotation ends well after it."""
    running = Vault(file.read(), file)
    record = running.seal(Secret("sk-provider"), "row")
    file.add_new()
    file.keep_first()
    running.refresh()
    assert running.open(record, "row").reveal() == "sk-provider"
    with pytest.raises(CannotDecrypt):
        Vault(file.read(), file).open(record, "row")


@pytest.mark.parametrize("content", [None, "", "not a key\n"])
def test_a_file_that_cannot_be_read_leaves_the_ring_as_it_is(file: MasterKeyFile, content: str | None) -> None:
    running = Vault(file.read(), file)
    record = running.seal(Secret("sk-provider"), "row")
    file.path.unlink() if content is None else file.path.write_text(content)
    running.refresh()
    assert running.open(record, "row").reveal() == "sk-provider"
    with pytest.raises(CannotDecrypt):
        running.open(Vault([NEW]).seal(Secret("x"), "row"), "row")
