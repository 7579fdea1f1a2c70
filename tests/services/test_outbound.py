"""Addresses that customers choose: only public ones are reached, whatever a name says, and every wait is bounded."""

from __future__ import annotations

import _socket
import functools
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.errors import InvalidInput
from services.outbound import Outbound, Refused, is_public
from tests.neighbours.smtp_sink import make_certificate
from tests.neighbours.webhook_receiver import WebhookReceiver, running_receiver

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
NOT_PUBLIC = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.9.9.9",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.170",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.fixture
def outbound() -> Outbound:
    return Outbound(LOOPBACK)


@pytest.fixture
def secure(tmp_path: Path, outbound: Outbound) -> Iterator[WebhookReceiver]:
    """A server with a certificate of its own authority, which ``outbound`` trusts."""
    certificate, authority = make_certificate(tmp_path)
    outbound.tls.load_verify_locations(authority)
    with running_receiver(certificate) as server:
        yield server


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let every name resolve to the next of these; return the names that were looked up."""
    waiting, asked = list(answers), []

    def look_up(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        found = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_neither_kept_nor_called(address: str, outside_attempts: list[str]) -> None:
    outbound, host = Outbound(), f"[{address}]" if ":" in address else address
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(InvalidInput) as refused:
        outbound.read_url(f"https://{host}/hook")
    assert "not public" in refused.value.fields["url"]
    with pytest.raises(Refused):
        outbound.post(f"https://{host}/hook", b"{}", {}, seconds=5)
    assert outside_attempts == []


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::200e"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "Enter an address"),
        ("hooks.example", "https://"),
        ("ftp://hooks.example", "https://"),
        ("http://hooks.example", "https://"),
        ("https:hooks.example", "https://"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://user:password@hooks.example", "user name"),
        ("https://hooks.example@evil.example", "user name"),
        ("https://hooks.example/#part", "#"),
        ("https://hooks.example:0/", "port"),
        ("https://hooks.example:99999/", "port"),
        ("https://hooks.example:port/", "port"),
        ("https://[::1", "host"),
        ("https://hooks..example/", "host"),
        (f"https://{'a' * 64}.example/", "host"),
        ("https://hööks.example/", "xn--"),
        ("https://hooks.example/a b", "letters"),
        ("https://hooks.example\\@evil.example/", "letters"),
        ("https://hooks.example/\r\nX-More: 1", "letters"),
        ("https://hooks.example/" + "a" * 2000, "2,000"),
    ],
)
def test_an_address_that_cannot_be_called_is_refused_with_a_sentence(url: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Outbound().read_url(url)
    assert words in refused.value.fields["url"]


def test_an_address_stays_as_it_was_entered() -> None:
    assert Outbound().read_url(" https://Hooks.example:8443/arka?token=a%20b&x ") == (
        "https://Hooks.example:8443/arka?token=a%20b&x"
    )


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1", "2130706433", "127.0.0.1."])
def test_other_spellings_of_this_machine_are_found_out(
    host: str, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the system reads numbers, but without asking anybody for what is none.
    numbers = functools.partial(_socket.getaddrinfo, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: numbers(host, port))
    with pytest.raises((Refused, OSError)):
        Outbound().post(f"https://{host}:{receiver.port}/", b"{}", {}, seconds=5)
    assert receiver.taken == []


def test_what_is_checked_is_the_address_that_is_connected_to(
    secure: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, outside_attempts: list[str]
) -> None:
    """A name that is public when it is looked up first and private the second time is looked up once."""
    asked = resolve_to(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    with pytest.raises(Exception, match=r"8\.8\.8\.8"):
        Outbound().post(f"https://hooks.example:{secure.port}/", b"{}", {}, seconds=5)
    assert asked == ["hooks.example"]
    assert outside_attempts == [f"connect 8.8.8.8 port {secure.port}"]
    outside_attempts.clear()
    with pytest.raises(Refused):
        Outbound().post(f"https://hooks.example:{secure.port}/", b"{}", {}, seconds=5)
    assert secure.taken == []


def test_a_name_with_one_private_address_is_not_called_at_all(
    monkeypatch: pytest.MonkeyPatch, outside_attempts: list[str]
) -> None:
    resolve_to(monkeypatch, ["8.8.8.8", "10.0.0.7"])
    with pytest.raises(Refused):
        Outbound().post("https://hooks.example/", b"{}", {}, seconds=5)
    assert outside_attempts == []


def test_over_tls_the_certificate_has_to_fit_the_name(
    outbound: Outbound, secure: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = outbound.post(f"{secure.url}/arka?a=1", b'{"a": 1}', {"X-Sent": "yes"}, seconds=5)
    assert (answer.status, answer.body) == (204, b"")
    taken = secure.taken[0]
    assert (taken.path, taken.body) == ("/arka?a=1", b'{"a": 1}')
    assert (taken.headers["host"], taken.headers["x-sent"]) == (f"127.0.0.1:{secure.port}", "yes")
    with pytest.raises(ssl.SSLCertVerificationError):
        Outbound(LOOPBACK).post(secure.url, b"", {}, seconds=5)
    resolve_to(monkeypatch, ["127.0.0.1"])
    with pytest.raises(ssl.SSLCertVerificationError):
        outbound.post(f"https://hooks.example:{secure.port}/", b"", {}, seconds=5)
    assert len(secure.taken) == 1


def test_plain_http_reaches_the_operators_own_networks_only(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, outside_attempts: list[str]
) -> None:
    outbound = Outbound(LOOPBACK)
    assert outbound.read_url(f"{receiver.url}/") == f"{receiver.url}/"
    assert outbound.post(receiver.url, b"", {}, seconds=5).status == 204
    resolve_to(monkeypatch, ["8.8.8.8"])
    with pytest.raises(Refused, match="https"):
        outbound.post("http://hooks.example/", b"", {}, seconds=5)
    assert outside_attempts == []


def test_redirects_are_not_followed(outbound: Outbound, receiver: WebhookReceiver) -> None:
    assert outbound.post(f"{receiver.url}/redirect", b"", {}, seconds=5).status == 302
    assert [taken.path for taken in receiver.taken] == ["/redirect"]


def test_no_more_of_an_answer_is_read_than_its_beginning(outbound: Outbound, receiver: WebhookReceiver) -> None:
    assert len(outbound.post(f"{receiver.url}/big", b"", {}, seconds=5).body) == 64 * 1024


@pytest.mark.parametrize("path", ["/hang", "/trickle"])
def test_whoever_hangs_or_trickles_is_given_up_in_time(
    outbound: Outbound, receiver: WebhookReceiver, path: str
) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        outbound.post(receiver.url + path, b"", {}, seconds=0.5)
    assert time.monotonic() - began < 2


def test_what_is_no_http_is_an_error(outbound: Outbound) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            stream, _ = listening.accept()
            with stream:
                stream.recv(1000)
                stream.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(http.client.HTTPException):
            outbound.post(f"http://127.0.0.1:{listening.getsockname()[1]}/", b"", {}, seconds=5)
        thread.join()
