"""Passwords: Argon2id at OWASP's parameters, and what a password must be.

A password counts in its NFKC form, so that the same letters match from whatever keyboard they come.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import unicodedata
from collections.abc import Iterable

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from services.secret import Secret

# NIST SP 800-63B-4: 15 characters where the password is the only factor, 8 beside another; no composition rules.
LEAST_LENGTH = 15
LEAST_LENGTH_BESIDE = 8
MOST_LENGTH = 128
# How many guesses zxcvbn expects a password to stand. What is on its lists of common passwords, repeats itself, runs
# along the keyboard or is made of two common words stays below; whatever is random at the least length is above.
_LEAST_GUESSES = 1e9
_LEAST_GUESSES_BESIDE = 1e6
# It takes its time for long ones, and looks at no more than these.
_JUDGED_LENGTH = 72

# OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1

_PARAMETERS = f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}$"


def _random(length: int) -> str:
    return base64.b64encode(os.urandom(length)).decode().rstrip("=")


# What a password is held against where there is no account: no password has this hash.
_HASH_OF_NOBODY = f"{_PARAMETERS}{_random(16)}${_random(32)}"

# Each hash holds its memory while it runs, so a burst of sign-ins waits in line.
_at_once = threading.BoundedSemaphore(4)


def fault_of(password: Secret, *, second_factor: bool = False, words: Iterable[str] = ()) -> str | None:
    """Return the sentence that says why this password cannot be taken, or None.

    ``second_factor`` tells that it does not stand alone. ``words`` are what others try first with this account: its
    address, the names of the workspace and the portal.
    """
    text = _normal(password)
    length, least = len(text), LEAST_LENGTH_BESIDE if second_factor else LEAST_LENGTH
    if length == 0:
        return "Enter a password"
    if length < least:
        return f"Use at least {least} characters. A few unrelated words are easy to remember"
    if length > MOST_LENGTH:
        return f"Use at most {MOST_LENGTH} characters"
    if _guesses(text, words) < (_LEAST_GUESSES_BESIDE if second_factor else _LEAST_GUESSES):
        return "This password is among the first that others would try. Use a few unrelated words"
    return None


def _guesses(text: str, words: Iterable[str]) -> float:
    # Its lists take memory and a moment to load; most processes never see a new password.
    from zxcvbn import zxcvbn

    # A lone surrogate counts as a letter, but cannot be looked up.
    judged = text.encode("utf-8", "replace").decode()[:_JUDGED_LENGTH]
    known = [word.lower() for text in words for word in (text, *re.split(r"[^\w]+", text)) if len(word) > 2]
    return float(zxcvbn(judged, user_inputs=known)["guesses"])


def hash_password(password: Secret) -> str:
    """Return the hash in the standard encoded form, parameters and salt included."""
    with _at_once:
        kdf = Argon2id(salt=os.urandom(16), length=32, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)
        return kdf.derive_phc_encoded(_bytes(_normal(password)))


def matches(password: Secret, encoded: str | None) -> bool:
    """Tell whether the password belongs to the hash. Without a hash it takes as long and says no."""
    # Hashes made before passwords were normalised hold the letters as they were typed.
    tried = [_verified(written, encoded) for written in {_normal(password), password.reveal()}]
    return any(tried) and bool(encoded)


def _verified(text: str, encoded: str | None) -> bool:
    try:
        with _at_once:
            Argon2id.verify_phc_encoded(_bytes(text), encoded or _HASH_OF_NOBODY)
    except InvalidKey:
        return False
    return True


def is_outdated(encoded: str) -> bool:
    """Tell whether a hash was made with other parameters than today's, or in another way."""
    return not encoded.startswith(_PARAMETERS)


def _normal(password: Secret) -> str:
    return unicodedata.normalize("NFKC", password.reveal())


def _bytes(text: str) -> bytes:
    # A lone surrogate cannot come from a keyboard, but it can come from a client.
    return text.encode("utf-8", "surrogatepass")
