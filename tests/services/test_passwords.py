"""What a password must be, and how it is kept."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from services import passwords
from services.secret import Secret

WORDS = ("alice@northwind.example", "Northwind Labs", "ARKA")


@pytest.mark.parametrize(
    "password",
    [
        "password1234567",
        "passwordpassword",
        "P@ssw0rdP@ssw0rd",
        "iloveyou iloveyou",
        "thisismypassword",
        "sunshineprincess",
        "123456789012345",
        "abcdefghijklmnop",
        "qwertyuiopasdfgh",
        "1qaz2wsx3edc4rfv",
        "aaaaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        "northwindnorthwind",
        "alice@northwind.example",
        "northwind labs 2026",
        "arkaarkaarkaarka",
        "ALICE@NORTHWIND.EXAMPLE",
    ],
)
def test_what_others_would_try_first_is_refused(password: str) -> None:
    assert "among the first" in (passwords.fault_of(Secret(password), words=WORDS) or "")


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "tidal gravel orbit nine",
        "zR4fkk1xPq8Lm2s",
        "нет никаких правил",
        "x" * 3 + "y 7q!ü-kellerassel",
    ],
)
def test_length_is_what_counts(password: str) -> None:
    assert passwords.fault_of(Secret(password), words=WORDS) is None


@pytest.mark.parametrize(
    ("password", "second_factor", "taken"),
    [
        ("zR4fkk1x", False, False),
        ("zR4fkk1x", True, True),
        ("zR4fkk1", True, False),
        ("password", True, False),
        ("northwind", True, False),
        ("k" * 129, True, False),
    ],
)
def test_eight_characters_are_enough_beside_a_second_factor(password: str, second_factor: bool, taken: bool) -> None:
    fault = passwords.fault_of(Secret(password), second_factor=second_factor, words=WORDS)
    assert (fault is None) is taken


def test_128_characters_are_taken_and_judged_quickly() -> None:
    longest = ("tidal gravel orbit nine " * 6)[:100] + "zR4fkk1xPq8Lm2sTb7Wd9Xy3Vc6A"
    assert len(longest) == 128
    passwords.fault_of(Secret(longest))
    began = time.perf_counter()
    assert passwords.fault_of(Secret(longest)) is None
    assert time.perf_counter() - began < 2
    encoded = passwords.hash_password(Secret(longest))
    assert passwords.matches(Secret(longest), encoded)
    assert not passwords.matches(Secret(longest[:-1]), encoded)


def test_the_same_letters_match_however_they_were_typed() -> None:
    composed, decomposed, wide = (
        "caf\u00e9 und kuchen heute",
        "cafe\u0301 und kuchen heute",
        "\uff43af\u00e9 und kuchen heute",
    )
    encoded = passwords.hash_password(Secret(composed))
    assert passwords.matches(Secret(decomposed), encoded)
    assert passwords.matches(Secret(wide), encoded)


def test_a_hash_from_before_passwords_were_normalised_still_matches() -> None:
    typed = "cafe\u0301 und kuchen heute"
    kdf = Argon2id(salt=b"0" * 16, length=32, iterations=1, lanes=1, memory_cost=1024)
    encoded = kdf.derive_phc_encoded(typed.encode())
    assert passwords.matches(Secret(typed), encoded)
    assert not passwords.matches(Secret(typed + "x"), encoded)


@pytest.mark.parametrize("encoded", [None, ""])
def test_without_a_hash_no_password_matches(encoded: str | None) -> None:
    assert not passwords.matches(Secret(""), encoded)
    assert not passwords.matches(Secret("anything"), encoded)


def test_parameters_are_those_of_owasp() -> None:
    encoded = passwords.hash_password(Secret("tidal gravel orbit nine"))
    assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not passwords.is_outdated(encoded)
    assert passwords.is_outdated(encoded.replace("t=2", "t=1"))
