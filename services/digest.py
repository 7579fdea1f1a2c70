"""Keyed digests: what the portal stores instead of a key or a session token."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.secret import Secret


class Digester:
    """HMAC-SHA256 under a key of its own for each purpose, derived from the portal's signing key by HKDF (RFC 5869).

    Without that key a copy of the database neither opens anything nor lets a guess be checked.
    """

    def __init__(self, signing_key: Secret, purpose: str) -> None:
        derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"arka {purpose}".encode())
        # Begun once: the key itself is two of the four blocks that are hashed.
        self._started = hmac.new(derive.derive(signing_key.reveal().encode()), digestmod="sha256")

    def digest(self, text: str) -> bytes:
        """Return the 32-byte digest of ``text``."""
        started = self._started.copy()
        started.update(text.encode())
        return started.digest()

    def __repr__(self) -> str:
        return "Digester(...)"
