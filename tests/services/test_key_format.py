"""The form of a key, and the checksum that tells a real one from a look-alike."""

from __future__ import annotations

import re
import string
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.key_format import ALPHABET, CHECKSUM_LENGTH, KeyFormat, checksum
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


EVERY_CHARACTER = ALPHABET + "_- \n\0é"
AN_EXAMPLE_EACH = settings(max_examples=8, deadline=None)


def taken(text: str) -> bool:
    parsed = FORMAT.parse(text)
    return parsed is not None and parsed.checksum_holds


@AN_EXAMPLE_EACH
@given(KINDS, ENVIRONMENTS)
def test_every_single_character_change_is_detected(kind: str, environment: str) -> None:
    """Not some of them: at every place every other character, and every one left out or put in."""
    key = FORMAT.generate(kind, environment).reveal()
    assert taken(key)
    for place in range(len(key) + 1):
        before, here, after = key[:place], key[place : place + 1], key[place + 1 :]
        assert not here or not taken(before + after)
        for other in EVERY_CHARACTER:
            assert not taken(before + other + here + after)
            assert other == here or not here or not taken(before + other + after)


@AN_EXAMPLE_EACH
@given(KINDS, ENVIRONMENTS)
def test_two_characters_that_changed_places_are_detected(kind: str, environment: str) -> None:
    """A slip of typing. CRC-32 sees every burst of up to 32 bits, so neighbours as well as those with two between."""
    key = FORMAT.generate(kind, environment).reveal()
    for first in range(len(key) - CHECKSUM_LENGTH):
        for second in range(first + 1, min(first + 4, len(key) - CHECKSUM_LENGTH)):
            swapped = list(key)
            swapped[first], swapped[second] = key[second], key[first]
            assert key[first] == key[second] or not taken("".join(swapped))


@given(KINDS, ENVIRONMENTS)
def test_one_kind_or_environment_does_not_pass_for_another(kind: str, environment: str) -> None:
    key = FORMAT.generate(kind, environment).reveal()
    others = [key.replace("_sk_", "_pk_"), key.replace("_pk_", "_sk_"), key.replace("_test_", "_")]
    others.append(re.sub("_(.k)_(?!test)", r"_\1_test_", key))
    assert not [other for other in others if other != key and taken(other)]


@given(st.from_regex(r"arka_(sk|pk|xk)_(test_|live_)?[0-9A-Za-z_-]{24,40}", fullmatch=True))
def test_what_only_looks_like_a_key_is_none(text: str) -> None:
    # One in two thousand million has the right checksum by chance.
    assert not taken(text)
    parsed = FORMAT.parse(text)
    shaped = re.fullmatch(r"arka_[sp]k_(?:test_)?[0-9A-Za-z]{32}", text) is not None
    assert (parsed is not None) == shaped


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
