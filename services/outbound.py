"""Calls to addresses that customers choose: they reach public addresses only, over TLS.

What is checked is the very address that is connected to, so that a name which resolves to something else the second
time gains nothing. Redirects are not followed, nothing is kept open, and one deadline holds over all waits.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from urllib.parse import urlsplit

from services.errors import InvalidInput
from services.gateway.connections import Origin
from services.hosts import parted
from services.restrictions import Address, Network

URL_LENGTH = 2000
_MOST_BYTES = 64 * 1024
_PIECE_BYTES = 8 * 1024
# What no address has, or what different readers of an address understand differently.
_UNUSABLE = set(" \\<>\"'`{|}^")

# Whatever is not of the public Internet: this host and network, private, shared, link-local (where clouds keep their
# metadata), protocols, documentation, 6to4 relays, benchmarks, multicast, reserved.
# https://www.iana.org/assignments/iana-ipv4-special-registry
_NOT_PUBLIC_4 = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# In IPv6 only this is given out; mapped IPv4, NAT64, local, private and multicast addresses lie outside of it. Inside
# lie protocols (Teredo among them), documentation and 6to4, which hold an IPv4 address.
_PUBLIC_6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class Refused(Exception):
    """The address must not be called. Its text is for whoever chose it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the first 64 kB of the body."""

    status: int
    body: bytes


class Outbound:
    """Calls out of this portal. ``networks`` are the operator's own, which may be called though they are not public."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self.networks = tuple(networks)

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """What authorities are trusted: megabytes, which a portal without webhooks need not read."""
        return ssl.create_default_context()

    def read_url(self, text: str) -> str:
        """Return an address as it is to be kept. Raises InvalidInput for the field ``url``."""
        text = text.strip()
        try:
            self._check_url(text)
        except (ValueError, Refused) as error:
            raise InvalidInput({"url": str(error)}) from None
        return text

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float) -> Answer:
        """Send a request and read the answer, all within so many seconds.

        Raises Refused for an address that must not be called, OSError and http.client.HTTPException for what fails.
        """
        until = time.monotonic() + seconds
        self._check_url(url)
        origin, path = Origin.of(url)
        query = urlsplit(url).query
        head = _head(origin, f"{path}?{query}" if query else path, headers, len(body))
        stream = self._connect(origin, until)
        try:
            stream.settimeout(_left(until))
            stream.sendall(head + body)
            # It asks nothing of a socket but a file to read from.
            response = http.client.HTTPResponse(cast(socket.socket, _Reading(stream, until)), method="POST")
            response.begin()
            return Answer(response.status, _beginning(response))
        finally:
            stream.close()

    def _check_url(self, text: str) -> None:
        """Raise ValueError or Refused for an address that is never called; a name is looked up only for the call."""
        _check_spelling(text)
        url = parted(text)
        if url.scheme not in (("https", "http") if self.networks else ("https",)):
            raise ValueError("Enter an address that begins with https://")
        if "@" in url.netloc:
            raise ValueError("Leave out user name and password")
        with contextlib.suppress(ValueError):
            self._check_address(ipaddress.ip_address(url.hostname or ""), encrypted=url.scheme == "https")

    def _check_address(self, address: Address, *, encrypted: bool) -> None:
        own = any(address in network for network in self.networks)
        if not own and not is_public(address):
            raise Refused("The address belongs to a network that is not public, so nothing is sent to it")
        if not own and not encrypted:
            raise Refused("The address must begin with https://")

    def _connect(self, origin: Origin, until: float) -> socket.socket:
        """Connect to an address that was checked: no name is looked up a second time."""
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        for *_, place in found:
            address = ipaddress.ip_address(str(place[0]).partition("%")[0])
            # One that must not be called is reason enough: a name that has both sorts is up to something.
            self._check_address(address, encrypted=origin.encrypted)
        failure: OSError = OSError("the name has no address")
        for family, kind, protocol, _, place in found:
            try:
                return self._connect_to(family, kind, protocol, place, origin, until)
            except OSError as error:
                failure = error
        raise failure

    def _connect_to(
        self, family: int, kind: int, protocol: int, place: tuple[object, ...], origin: Origin, until: float
    ) -> socket.socket:
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_left(until))
            plain.connect(place)
            plain.settimeout(_left(until))
            return self.tls.wrap_socket(plain, server_hostname=origin.host) if origin.encrypted else plain
        except BaseException:
            plain.close()
            raise


class _Reading(io.RawIOBase):
    """The reading side of a connection, which gives up when the time is over however the bytes trickle in."""

    def __init__(self, stream: socket.socket, until: float) -> None:
        self._stream, self._until = stream, until

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _PIECE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._stream.settimeout(_left(self._until))
        return self._stream.recv_into(buffer)


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public Internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _check_spelling(text: str) -> None:
    if not text:
        raise ValueError("Enter an address")
    if len(text) > URL_LENGTH:
        raise ValueError(f"Use at most {URL_LENGTH:,} characters")
    if not text.isascii() or not text.isprintable() or set(text) & _UNUSABLE:
        raise ValueError("Use plain letters, digits and signs only; write a name from another script as xn--...")
    if "#" in text:
        raise ValueError("Leave out the part from # on")
    if not text.startswith(("https://", "http://")):
        raise ValueError("Enter an address that begins with https://")


def _head(origin: Origin, target: str, headers: Mapping[str, str], length: int) -> bytes:
    sent = {"Host": origin.name, **headers, "Content-Length": str(length), "Connection": "close"}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _beginning(response: http.client.HTTPResponse) -> bytes:
    """Return the beginning of the body. The status counts, so a body that breaks off does not matter."""
    read = bytearray()
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        while len(read) < _MOST_BYTES and (piece := response.read1(_PIECE_BYTES)):
            read += piece
    return bytes(read[:_MOST_BYTES])


def _left(until: float) -> float:
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
