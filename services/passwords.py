"""Passwords: Argon2id at OWASP's parameters, and what a password must be."""

from __future__ import annotations

import base64
import os
import threading

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from services.secret import Secret

# NIST SP 800-63B-4: 15 characters where the password is the only factor; no composition rules.
LEAST_LENGTH = 15
MOST_LENGTH = 128

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


def fault_of(password: Secret) -> str | None:
    """Return the sentence that says why this password cannot be taken, or None."""
    length = len(password.reveal())
    if length == 0:
        return "Enter a password"
    if length < LEAST_LENGTH:
        return f"Use at least {LEAST_LENGTH} characters. A few unrelated words are easy to remember"
    if length > MOST_LENGTH:
        return f"Use at most {MOST_LENGTH} characters"
    if len(set(password.reveal())) < 5:
        return "Use more than four different characters"
    return None


def hash_password(password: Secret) -> str:
    """Return the hash in the standard encoded form, parameters and salt included."""
    with _at_once:
        kdf = Argon2id(salt=os.urandom(16), length=32, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)
        return kdf.derive_phc_encoded(_bytes(password))


def matches(password: Secret, encoded: str | None) -> bool:
    """Tell whether the password belongs to the hash. Without a hash it takes as long and says no."""
    try:
        with _at_once:
            Argon2id.verify_phc_encoded(_bytes(password), encoded or _HASH_OF_NOBODY)
    except InvalidKey:
        return False
    return bool(encoded)


def is_outdated(encoded: str) -> bool:
    """Tell whether a hash was made with other parameters than today's, or in another way."""
    return not encoded.startswith(_PARAMETERS)


def _bytes(password: Secret) -> bytes:
    # A lone surrogate cannot come from a keyboard, but it can come from a client.
    return password.reveal().encode("utf-8", "surrogatepass")
