"""Requests that no decent client sends, byte by byte over a socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.neighbours.portal import Portal, running_portal
from tests.portal.calls import CHAT, HELLO, call

KEY = b"Authorization: Bearer KEY"
BODY = json.dumps(HELLO).encode()


@pytest.fixture(scope="module")
def shared_portal() -> Iterator[tuple[Portal, str]]:
    """One portal for the whole file, and a test key: nothing here changes it."""
    from tests.portal.calls import PASSWORD

    with running_portal({"ARKA_DEMO": "0"}) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "agency")
        key = portal.command("key", "create", "--workspace", "alice", "--name", "x", "--test").stdout.strip()
        yield portal, key


@pytest.fixture
def send(shared_portal: tuple[Portal, str]) -> Callable[..., bytes]:
    """Send bytes and return all that comes back; ``KEY`` stands for the key. ``cut``: nothing more will follow."""
    portal, key = shared_portal

    def exchange(request: bytes, *, cut: bool = False) -> bytes:
        with socket.create_connection(("127.0.0.1", portal.port), timeout=20) as connection:
            connection.sendall(request.replace(b"KEY", key.encode()))
            if cut:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    return exchange


def post(*headers: bytes, body: bytes = BODY) -> bytes:
    lines = [b"POST " + CHAT.encode() + b" HTTP/1.1", b"Host: localhost", b"Connection: close", KEY, *headers]
    return b"\r\n".join([*lines, b"", b""]) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_a_whole_body_is_answered(send: Callable[..., bytes]) -> None:
    assert status_of(send(post(b"Content-Length: %d" % len(BODY)))) == 200
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert status_of(send(post(b"Transfer-Encoding: chunked", body=chunked))) == 200


def test_a_body_that_was_cut_off_is_not_taken_for_whole(send: Callable[..., bytes]) -> None:
    assert status_of(send(post(b"Content-Length: %d" % (len(BODY) + 500)), cut=True)) in (0, 400)


def test_a_chunked_body_over_the_limit_is_413(send: Callable[..., bytes]) -> None:
    piece = BODY + b" " * (1_000_000 - len(BODY))
    chunks = b"%x\r\n%s\r\n" % (len(piece), piece) + b"".join([b"%x\r\n%s\r\n" % (10**6, b" " * 10**6)] * 10)
    assert status_of(send(post(b"Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n"))) == 413


@pytest.mark.parametrize(
    "hosts",
    [
        b"",
        b"Host: a.example\r\nHost: b.example\r\n",
        b"Host: a..b\r\n",
        b"Host: a b\r\n",
        b"Host: [::1\r\n",
        b"Host: user@a.example\r\n",
        b"Host: a/b\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/v1/models", b"/sign-in"])
def test_anything_but_one_proper_host_is_400(send: Callable[..., bytes], hosts: bytes, path: bytes) -> None:
    answer = send(b"GET " + path + b" HTTP/1.1\r\n" + hosts + KEY + b"\r\nConnection: close\r\n\r\n")
    assert status_of(answer) == 400


@pytest.mark.parametrize(
    "host", [b"localhost", b"127.0.0.1:80", b"[::1]:5000", b"portal.example.", b"my_host-1.local:1"]
)
def test_a_proper_host_is_fine(send: Callable[..., bytes], host: bytes) -> None:
    answer = send(
        b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: Bearer KEY\r\nConnection: close\r\n\r\n"
    )
    assert status_of(answer) == 200


@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"Bearer \xc3\xa9", b"Bearer " + b"x" * 60_000, b"\t", b"Bearer\x0bKEY", b"=?utf-8?"]
)
@pytest.mark.parametrize("header", [b"Authorization", b"X-API-Key"])
def test_any_bytes_as_credentials_are_400_401_403_or_431(
    send: Callable[..., bytes], header: bytes, value: bytes
) -> None:
    lines = [b"GET /v1/models HTTP/1.1", b"Host: localhost", b"Connection: close", header + b": " + value]
    answer = send(b"\r\n".join([*lines, b"", b""]))
    assert status_of(answer) in (400, 401, 403, 431)


def test_slow_clients_do_not_keep_others_waiting(shared_portal: tuple[Portal, str]) -> None:
    portal, key = shared_portal
    halves = [b"GET /v1/models HTTP/1.1\r\nHost: local"] * 60 + [post(b"Content-Length: 500")[:-20]] * 30
    connections = [socket.create_connection(("127.0.0.1", portal.port), timeout=20) for _ in halves]
    try:
        for connection, half in zip(connections, halves, strict=True):
            connection.sendall(half.replace(b"KEY", key.encode()))
        answered = threading.Event()

        def ask() -> None:
            assert call(portal.port, key)[0] == 200
            answered.set()

        threading.Thread(target=ask, daemon=True).start()
        assert answered.wait(5)
    finally:
        for connection in connections:
            connection.close()
