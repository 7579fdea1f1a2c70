"""The vault: seals stored secrets with AES-256-GCM so that only this portal, and only the right row, can open them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.master_keys import KEY_BYTES, MasterKeyFile
from services.secret import Secret

_VERSION = "v1"
_NONCE_BYTES = 12
_log = structlog.get_logger("vault")


class CannotDecrypt(Exception):
    """The record is damaged, was moved here from another row, or its master key is not in the ring."""


class Vault:
    """A ring of master keys. The first seals; all of them open, so that keys can be changed without downtime.

    A sealed record is text that explains itself: ``v1.<key id>.<nonce>.<ciphertext and tag>``, the last two in
    URL-safe base 64. The place it belongs to is bound as associated data and is not stored in it.

    A ring that comes from a file is read again when a record names a key that is not in it, and by ``refresh``: another
    process may have put a new key in front. A key that was known once opens until the process ends.
    """

    def __init__(self, master_keys: Sequence[bytes], file: MasterKeyFile | None = None) -> None:
        self.file = file
        self._ciphers: dict[str, AESGCM] = {}
        self._take(master_keys)

    def _take(self, master_keys: Sequence[bytes]) -> None:
        if not master_keys or any(len(key) != KEY_BYTES for key in master_keys):
            raise ValueError("a vault needs at least one master key of 32 bytes")
        # Replaced as a whole: other threads open and seal meanwhile.
        self._ciphers = {**self._ciphers, **{key_id(key): AESGCM(key) for key in master_keys}}
        self.ring = tuple(key_id(key) for key in master_keys)

    @property
    def active_key_id(self) -> str:
        """The public name of the key that seals."""
        return self.ring[0]

    def refresh(self) -> bool:
        """Read the ring's file again, if there is one. A file that cannot be read leaves the ring as it is: False."""
        if self.file is None:
            return True
        try:
            self._take(self.file.read())
        except (OSError, ValueError) as error:
            _log.error("master key file cannot be read", path=str(self.file.path), reason=type(error).__name__)
            return False
        return True

    @property
    def key_ids(self) -> list[str]:
        """The public names of the keys in the ring."""
        return list(self._ciphers)

    def seal(self, secret: Secret, place: str) -> str:
        """Encrypt ``secret`` for ``place`` with a fresh random nonce of 96 bits (NIST SP 800-38D).

        What is to be stored goes through ``services.sealing``, which counts how often a key has sealed.
        """
        name = self.active_key_id
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._ciphers[name].encrypt(nonce, secret.reveal().encode(), place.encode())
        return ".".join([_VERSION, name, _encode(nonce), _encode(ciphertext)])

    def open(self, record: str, place: str) -> Secret:
        """Decrypt a record sealed for ``place``. Raises CannotDecrypt, with no part of the content."""
        try:
            name, nonce, ciphertext = _read(record)
            if name not in self._ciphers:
                self.refresh()
            plain = self._ciphers[name].decrypt(nonce, ciphertext, place.encode())
        except (ValueError, KeyError, InvalidTag):
            raise CannotDecrypt from None
        return Secret(plain.decode())

    def __repr__(self) -> str:
        return f"Vault(active_key_id={self.active_key_id!r})"


def key_id(master_key: bytes) -> str:
    """Return the public name of a master key: the first eight hexadecimal digits of its SHA-256."""
    return hashlib.sha256(b"arka master key " + master_key).hexdigest()[:8]


def sealed_with(record: str) -> str:
    """Return the public name of the master key that a record says it was sealed with; empty for what is no record."""
    parts = record.split(".")
    return parts[1] if len(parts) == 4 and parts[0] == _VERSION else ""


@lru_cache(maxsize=1024)
def _read(record: str) -> tuple[str, bytes, bytes]:
    """Return key id, nonce and ciphertext of a record, which every call reads and none of which is secret."""
    version, name, nonce, ciphertext = record.split(".")
    if version != _VERSION:
        raise ValueError("a record of another version")
    return name, _decode(nonce), _decode(ciphertext)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # Base 64 has spare bits at its end; a record has exactly one spelling.
    if _encode(data) != text:
        raise ValueError("not the one spelling of this record")
    return data
