"""The form of an API key: ``arka_sk_`` or ``arka_pk_``, ``test_`` for a test key, 26 random characters, 6 of checksum.

Pure: no database, no settings. The checksum is the CRC-32 of all that precedes it, in base 62 (digits, capitals,
small letters), so that a secret scanner can tell a real key from a look-alike offline, as GitHub's tokens do.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from typing import NamedTuple

from services.secret import Secret

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 26
CHECKSUM_LENGTH = 6
KINDS = {"secret": "sk", "publishable": "pk"}


class ParsedKey(NamedTuple):
    """What a key tells by its form alone."""

    kind: str
    environment: str
    checksum_holds: bool
    first_characters: str
    last_characters: str


class KeyFormat:
    """Makes and reads keys of one portal, whose name (``arka``) begins each of them."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.pattern = rf"{re.escape(prefix)}_(sk|pk)_(test_)?([0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}})"
        self._matcher = re.compile(self.pattern)

    def generate(self, kind: str, environment: str) -> Secret:
        """Return a new key from the operating system's generator: 26 base-62 characters, about 154 bits."""
        test = "test_" if environment == "test" else ""
        random = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
        body = f"{self.prefix}_{KINDS[kind]}_{test}{random}"
        return Secret(body + checksum(body))

    def parse(self, text: str) -> ParsedKey | None:
        """Read a key by its form; None when ``text`` is no key of this portal, whatever else it is."""
        match = self._matcher.fullmatch(text)
        if match is None:
            return None
        kind, test, characters = match.groups()
        return ParsedKey(
            kind="secret" if kind == "sk" else "publishable",
            environment="test" if test else "live",
            checksum_holds=checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:],
            first_characters=characters[:4],
            last_characters=characters[-5:],
        )


def checksum(text: str) -> str:
    """Return the CRC-32 (ISO 3309) of ``text`` in base 62, padded to six characters."""
    first, rest = divmod(zlib.crc32(text.encode("ascii")), len(_PAIRS) ** 2)
    second, third = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[second] + _PAIRS[third]


# Two digits at a time: every call has its checksum looked at.
_PAIRS = [tens + units for tens in ALPHABET for units in ALPHABET]
