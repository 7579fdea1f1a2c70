"""Tests reach this machine only. An attempt to reach another one is refused, and fails the test even if caught."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

attempts: list[str] = []


class OutsideConnection(Exception):
    """Code under test tried to reach another machine. Not an OSError, so that nobody takes it for a network failure."""


def is_inside(host: object) -> bool:
    """Tell whether a host name or address is this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in ("", "localhost"):
        return True
    if not isinstance(name, str):
        return False
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name.endswith(".localhost")


def refuse(what: str) -> None:
    attempts.append(what)
    raise OutsideConnection(f"a test tried to reach another machine: {what}")


def install(patch: pytest.MonkeyPatch) -> None:
    """Put a check before every way by which Python's sockets leave the machine."""
    for name in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, name, _checked(getattr(socket.socket, name)))
    patch.setattr(socket, "getaddrinfo", _checked_look_up(socket.getaddrinfo))


def _checked(original: Any) -> Any:
    def method(self: socket.socket, *arguments: Any) -> Any:
        # The address comes last in all three.
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_inside(address[0]):
            # Callers close a socket after an OSError only.
            self.close()
            refuse(f"{original.__name__} {address[0]} port {address[1]}")
        return original(self, *arguments)

    return method


def _checked_look_up(original: Any) -> Any:
    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if not is_inside(host) and not _is_address(host):
            refuse(f"name look-up of {host}")
        return original(host, *arguments, **options)

    return getaddrinfo


def _is_address(host: object) -> bool:
    """Tell whether this is an address: to look one up asks nobody."""
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def _guarded_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        yield


@pytest.fixture
def outside_attempts() -> list[str]:
    """What this test tried to reach; a test that tries on purpose clears the list."""
    return attempts


@pytest.fixture(autouse=True)
def _no_outside_attempts() -> Iterator[None]:
    attempts.clear()
    yield
    tried = attempts.copy()
    attempts.clear()
    if tried:
        pytest.fail("tried to reach another machine: " + "; ".join(tried), pytrace=False)
