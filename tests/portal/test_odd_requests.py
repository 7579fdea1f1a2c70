"""Requests that no decent client sends, byte by byte over a socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
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
            # It may be refused, and the connection closed, before all of it was sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
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


HALF = BODY[:-20]


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n" + BODY,
        b"%x\r\n%sX\r\n0\r\n\r\n" % (len(HALF), HALF),
        b"%x\r\n%s\r\n" % (len(HALF), HALF),
        b"%x\r\n%s" % (len(BODY) + 1000, HALF),
        b"\r\n0\r\n\r\n",
    ],
    ids=["no number", "negative", "too large a number", "longer than told", "no last chunk", "cut chunk", "no size"],
)
def test_broken_chunks_are_never_taken_for_a_whole_body(send: Callable[..., bytes], chunks: bytes) -> None:
    answer = send(post(b"Transfer-Encoding: chunked", body=chunks), cut=True)
    assert status_of(answer) in (0, 400)
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize("end", [b"", b"X\r\n0\r\n\r\n", b"\r\n", b"\r\nzz\r\n"])
def test_what_follows_a_broken_chunk_is_never_a_request(send: Callable[..., bytes], end: bytes) -> None:
    """The server tells us of broken chunks no more than that there is nothing to come. JSON that is whole says so
    itself; what matters is that nothing after it is read."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = b"\r\n".join(
        [b"POST " + CHAT.encode() + b" HTTP/1.1", b"Host: localhost", KEY, b"Transfer-Encoding: chunked", b"", b""]
    )
    answer = send(request + b"%x\r\n%s" % (len(BODY), BODY) + end + hidden, cut=True)
    assert status_of(answer) in (0, 200, 400)
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize(
    "headers",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: +5",),
        (b"Content-Length: 5, 6",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"X-Folded: a\r\n b",),
    ],
)
def test_a_length_that_can_be_read_in_two_ways_gets_one_answer_at_most(
    send: Callable[..., bytes], headers: tuple[bytes, ...]
) -> None:
    """What follows the body by one reading must not be answered as a request of its own."""
    hidden = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    lines = [b"POST " + CHAT.encode() + b" HTTP/1.1", b"Host: localhost", KEY, *headers]
    answer = send(b"\r\n".join([*lines, b"", b""]) + hidden, cut=True)
    assert status_of(answer) in (0, 400, 501)
    assert answer.count(b"HTTP/1.1 ") <= 1


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


def restricted_to_a_model(portal: Portal) -> str:
    """A key for which the gate has to know the model, so that it reads the body before it has decided."""
    scopes = ("--scope", "keys:write", "--scope", "chat:write")
    keeper = portal.command("key", "create", "--workspace", "alice", "--name", "y", *scopes).stdout
    new = {
        "name": "z",
        "kind": "secret",
        "environment": "test",
        "scopes": ["chat:write"],
        "restrictions": {"models": ["gpt-4o"]},
    }
    status, _, answer = call(portal.port, keeper.strip(), "POST", "/v1/keys", new)
    assert status == 201, answer
    return str(answer["key"])


@pytest.mark.parametrize("of_key", ["any key", "a key restricted to a model"])
def test_slow_clients_do_not_keep_others_waiting(shared_portal: tuple[Portal, str], of_key: str) -> None:
    portal, key = shared_portal
    slow_key = key if of_key == "any key" else restricted_to_a_model(portal)
    halves = [b"GET /v1/models HTTP/1.1\r\nHost: local"] * 60 + [post(b"Content-Length: 500")[:-20]] * 30
    connections = [socket.create_connection(("127.0.0.1", portal.port), timeout=20) for _ in halves]
    try:
        for connection, half in zip(connections, halves, strict=True):
            connection.sendall(half.replace(b"KEY", slow_key.encode()))
        answers: list[tuple[int, float]] = []

        def ask() -> None:
            began = time.monotonic()
            answers.append((call(portal.port, key)[0], time.monotonic() - began))

        others = [threading.Thread(target=ask, daemon=True) for _ in range(5)]
        for other in others:
            other.start()
        for other in others:
            other.join(10)
        assert [status for status, _ in answers] == [200] * 5
        assert sorted(seconds for _, seconds in answers)[2] < 2
    finally:
        for connection in connections:
            connection.close()
