"""The form of a key, and the checksum that tells a real one from a look-alike."""

from __future__ import annotations

import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.key_format import ALPHABET, KeyFormat, checksum
from services.secret import Secret

FORMAT = KeyFormat("arka")
KINDS = st.sampled_from(["secret", "publishable"])
ENVIRONMENTS = st.sampled_from(["live", "test"])


@given(KINDS, ENVIRONMENTS)
def test_a_new_key_reads_back_as_what_it_was_made_for(kind: str, environment: str) -> None:
    key = FORMAT.generate(kind, environment).reveal()
    parsed = FORMAT.parse(key)
    assert parsed is not None
    assert (parsed.kind, parsed.environment, parsed.checksum_holds) == (kind, environment, True)
    assert key.endswith(parsed.last_characters)


def test_the_documented_form() -> None:
    key = FORMAT.generate("secret", "live").reveal()
    assert key.startswith("arka_sk_")
    assert len(key) == len("arka_sk_") + 32
    assert FORMAT.generate("publishable", "test").reveal().startswith("arka_pk_test_")


def test_the_checksum_is_the_crc_32_of_all_that_precedes_it_in_base_62() -> None:
    key = FORMAT.generate("secret", "live").reveal()
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    value = 0
    for character in key[-6:]:
        value = value * 62 + digits.index(character)
    assert value == zlib.crc32(key[:-6].encode())


@given(KINDS, ENVIRONMENTS, st.data())
def test_every_single_character_change_is_detected(kind: str, environment: str, data: st.DataObject) -> None:
    key = FORMAT.generate(kind, environment).reveal()
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from([character for character in ALPHABET + "_" if character != key[place]]))
    parsed = FORMAT.parse(key[:place] + other + key[place + 1 :])
    assert parsed is None or not parsed.checksum_holds


@given(st.text())
def test_any_other_text_is_no_key(text: str) -> None:
    assert FORMAT.parse(text) is None


@pytest.mark.parametrize("spoil", ["\n{}", "{}\n", "{} ", "{}{}", "x{}", "{}\0"])
def test_a_key_with_something_around_it_is_no_key(spoil: str) -> None:
    key = FORMAT.generate("secret", "live").reveal()
    assert FORMAT.parse(spoil.format(key, key)) is None


def test_keys_of_another_portal_are_no_keys() -> None:
    assert FORMAT.parse(KeyFormat("other").generate("secret", "live").reveal()) is None


def test_short_checksums_are_padded() -> None:
    assert all(len(checksum(f"x{number}")) == 6 for number in range(2000))


def test_a_secret_shows_nothing() -> None:
    import copy
    import pickle

    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret!r} {secret} {secret:>20} {[secret]} {{'a': secret}}"
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
    with pytest.raises(TypeError):
        hash(secret)
