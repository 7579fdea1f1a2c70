"""The vault: sealed for one place, opened only there, and never with the same nonce."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.secret import Secret
from services.vault import CannotDecrypt, Vault

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


@given(st.integers(0, 200))
def test_a_shortened_record_does_not_open(length: int) -> None:
    record = VAULT.seal(Secret("sk-provider-key"), "row")
    with pytest.raises(CannotDecrypt):
        VAULT.open(record[: min(length, len(record) - 1)], "row")


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
