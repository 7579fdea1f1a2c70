"""Master keys as text: how a setting or a file holds them, and the file that the portal keeps by itself."""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

KEY_BYTES = 32


def read_master_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys in a text, separated by spaces, lines or commas; the first one seals.

    Raises ValueError with the end of a sentence.
    """
    return tuple(_read(part) for part in re.split(r"[\s,]+", text.strip()))


def _read(text: str) -> bytes:
    try:
        key = bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else _base64(text)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES or len(set(key)) < 8:
        raise ValueError(
            "must be 32 random bytes in hexadecimal or base 64 (several, separated by commas: the first "
            "one seals), for example what "
            "`python3 -c 'import secrets; print(secrets.token_hex(32))'` prints"
        )
    return key


def _base64(text: str) -> bytes:
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)


class MasterKeyFile:
    """The file with the master keys of one instance folder, one key a line, mode 0600.

    It is only ever replaced as a whole, so a process that reads it meanwhile sees the old ring or the new one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[bytes, ...]:
        """Return the ring. Raises OSError, and ValueError when the file is damaged."""
        return read_master_keys(self.path.read_text())

    def add_new(self) -> None:
        """Put a new random key in front of the others, which stay. Raises as ``read`` does."""
        self._replace([secrets.token_bytes(KEY_BYTES), *self.read()])

    def keep_first(self) -> None:
        """Drop every key but the one that seals. Raises as ``read`` does."""
        self._replace(self.read()[:1])

    def _replace(self, keys: Sequence[bytes]) -> None:
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write("".join(f"{key.hex()}\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
            _sync_folder(self.path.parent)
        finally:
            draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let the new name outlive a power cut: rows sealed with a key that the file lost could never be opened."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
