"""Seals a form that was sent, so that its page can carry it over the question who is there."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.errors import InvalidRequest
from services.secret import Secret

Fields = Sequence[tuple[str, str]]

MOST_BYTES = 100_000
_LIFETIME_SECONDS = 3600


class FormSeal:
    """Encrypts and signs the fields of a form for one place: a session and an address. Nothing is stored.

    It has a key of its own, derived from the portal's signing key, and so uses up no seals of the vault.
    """

    def __init__(self, signing_key: Secret) -> None:
        derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"arka carried form")
        self._cipher = Fernet(base64.urlsafe_b64encode(derive.derive(signing_key.reveal().encode())))

    def seal(self, fields: Fields, place: str) -> str:
        """Return the fields, readable for nobody else. Raises InvalidRequest when they are too many."""
        plain = json.dumps([place, [list(field) for field in fields]]).encode()
        if len(plain) > MOST_BYTES:
            raise InvalidRequest("This form is too large to be kept. Go back, prove who you are and send it again.")
        return self._cipher.encrypt(plain).decode()

    def open(self, sealed: str, place: str) -> list[tuple[str, str]]:
        """Return the fields that were sealed for this place within the last hour. Raises InvalidRequest."""
        try:
            # A code point that cannot be encoded was never ours.
            plain = self._cipher.decrypt(sealed.encode("ascii"), ttl=_LIFETIME_SECONDS)
        except (InvalidToken, UnicodeEncodeError):
            raise _expired() from None
        sealed_for, fields = json.loads(plain)
        if sealed_for != place:
            raise _expired()
        return [(name, value) for name, value in fields]

    def __repr__(self) -> str:
        return "FormSeal(...)"


def _expired() -> InvalidRequest:
    return InvalidRequest("This form has expired. Go back, load the page again and send it once more.")
