"""Where the portal listens: the address behind a name, and a port that no other portal takes at the same moment."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from services.restrictions import Address


class NoAddress(Exception):
    """The host is no address of this machine; the text says why."""


class PortTaken(Exception):
    """The port is somebody else's, or not for us; the text says why."""


def address_of(host: str) -> str:
    """Return the address to listen on: of those that a name has, the least, and IPv4 before IPv6.

    Whoever asks for the name on this machine tries all of its addresses. Raises NoAddress.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAddress(error.strerror) from None
    # One that holds only together with the name of an interface is nothing that the server takes.
    addresses = {ipaddress.ip_address(str(place[0])) for *_, place in found if "%" not in str(place[0])}
    if not addresses:
        raise NoAddress("The name has no address")
    return str(min(addresses, key=_rank))


def _rank(address: Address) -> tuple[int, int]:
    return address.version, int(address)


@contextmanager
def claimed(address: str, port: int) -> Iterator[int]:
    """Keep other portals from this port, also before anybody listens there. Raises NoAddress and PortTaken.

    Gives the descriptor that keeps them away. A child that inherits it does so, too.
    """
    # The workers share the port, and what may share a port keeps nobody away from it who may as well. A name can be
    # had once. It belongs to the network as the port does, and goes with the last process that holds it.
    with socket.socket(socket.AF_UNIX) as claim:
        if sys.platform.startswith("linux"):
            _take_name(claim, f"\0arka-portal {address} {port}")
        _refuse_taken(address, port)
        yield claim.fileno()


def _take_name(claim: socket.socket, name: str) -> None:
    try:
        claim.bind(name)
    except OSError as error:
        # Where such names are forbidden, a portal that listens is still found.
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(error.strerror) from None


def _refuse_taken(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            words = os.strerror(error.errno or 0)
            raise (PortTaken if error.errno in (errno.EADDRINUSE, errno.EACCES) else NoAddress)(words) from None
