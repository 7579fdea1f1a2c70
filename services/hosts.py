"""Hosts as people write them, alone or in an address: which of them can be at all. No name is looked up here."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

_LONGEST_NAME = 253
_LABEL = re.compile(r"[a-z0-9_-]{1,63}", re.IGNORECASE)


def parted(text: str) -> SplitResult:
    """Return the parts of an address. Raises ValueError for one without a host or port that can be.

    The error repeats nothing of the address, which may hold a password.
    """
    try:
        url = urlsplit(text)
        port, host = url.port, url.hostname or ""
    except ValueError:
        raise ValueError("The port or the host of the address is not valid") from None
    if port == 0 or not is_host(host):
        raise ValueError("The port or the host of the address is not valid")
    return url


def is_host(text: str) -> bool:
    """Tell whether this is an IP address, or a name that the name service can be asked for."""
    return is_ip_address(text) or _is_name(text)


def is_ip_address(text: str) -> bool:
    """Tell whether this is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    try:
        # As the name service is asked for names of other scripts; to load that takes its time.
        name = text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        return False
    name = name.removesuffix(".")
    return len(name) <= _LONGEST_NAME and all(map(_LABEL.fullmatch, name.split(".")))
