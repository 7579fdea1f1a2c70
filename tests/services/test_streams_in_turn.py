"""The threads of many streams take turns, and none keeps the others waiting while it waits itself."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.gateway.connections import Connection, Origin
from services.gateway.line import Line
from tests.neighbours.processes import wait_until
from tests.neighbours.smtp_sink import make_certificate

# More than may go on at a time.
MANY = 12


class Crowd:
    """Threads that stand in a line, and what was seen of them."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._mutex = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.go_on = threading.Semaphore(0)
        self.arrived: list[int] = []
        self.entered: list[int] = []
        self.most_inside = self.inside = 0

    def join(self, number: int) -> None:
        """Add a thread, and wait until it is inside or in the line."""
        thread = threading.Thread(target=self._pass, args=(number,), daemon=True)
        self._threads.append(thread)
        thread.start()
        assert wait_until(lambda: number in self.arrived, 10)
        # From there to its place in the line it is a few steps.
        time.sleep(0.01)

    def let_all_pass(self) -> None:
        self.go_on.release(len(self._threads))
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _pass(self, number: int) -> None:
        self.arrived.append(number)
        self._line.enter()
        with self._mutex:
            self.entered.append(number)
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        self.go_on.acquire()
        with self._mutex:
            self.inside -= 1
        self._line.leave()


def test_few_go_on_at_a_time_in_the_order_they_came() -> None:
    crowd = Crowd(Line())
    for number in range(MANY):
        crowd.join(number)

    assert crowd.entered == [0, 1, 2, 3]

    crowd.let_all_pass()

    assert crowd.entered == list(range(MANY))
    assert crowd.most_inside == 4


def test_the_longer_the_line_the_fewer_go_on_at_a_time() -> None:
    crowd = Crowd(Line())
    for number in range(MANY):
        crowd.join(number)

    crowd.go_on.release(3)

    assert wait_until(lambda: crowd.inside == 1, 10)
    # Of the three who left, none was followed by another: there are eight in the line.
    time.sleep(0.05)
    assert crowd.entered == [0, 1, 2, 3]

    crowd.let_all_pass()

    assert crowd.entered == list(range(MANY))


Pair = tuple[Connection, socket.socket]


def read_in_time(connection: Connection) -> bytes:
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(connection._receive(100)), daemon=True)
    thread.start()
    thread.join(10)
    assert found, "it waits for a turn that never comes"
    return found[0]


@pytest.fixture
def plain() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    connection = Connection(Origin("provider.example", 80, encrypted=False), ours)
    connection.wait_seconds = 5.0
    with theirs, closing(connection):
        yield connection, theirs


class Encrypting:
    """Our side of a TLS handshake, in a thread of its own."""

    def __init__(self, ours: socket.socket, trusted: Path) -> None:
        self._context = ssl.create_default_context(cafile=str(trusted))
        self._found: list[ssl.SSLSocket] = []
        self._thread = threading.Thread(target=self._shake_hands, args=(ours,), daemon=True)
        self._thread.start()

    def done(self) -> Connection:
        self._thread.join(10)
        connection = Connection(Origin("127.0.0.1", 443, encrypted=True), self._found[0])
        connection.wait_seconds = 5.0
        return connection

    def _shake_hands(self, ours: socket.socket) -> None:
        self._found.append(self._context.wrap_socket(ours, server_hostname="127.0.0.1"))


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Pair]:
    """A connection over TLS, and the plain socket that carries what the provider's side of it has encrypted."""
    server, trusted = make_certificate(tmp_path)
    ours, wire = socket.socketpair()
    encrypting = Encrypting(ours, trusted)
    theirs = server.wrap_socket(wire, server_side=True)
    connection = encrypting.done()
    with theirs, closing(connection):
        yield connection, theirs


def with_a_turn(line: Line) -> Pair:
    """A connection that carries a stream and has read something of it."""
    ours, theirs = socket.socketpair()
    connection = Connection(Origin("provider.example", 80, encrypted=False), ours)
    connection.wait_seconds = 5.0
    connection.begin_stream(line)
    theirs.sendall(b"one")
    assert read_in_time(connection) == b"one"
    return connection, theirs


def test_a_stream_that_waits_keeps_no_turn(plain: Pair) -> None:
    line = Line()
    waiting = []
    for _ in range(MANY):
        connection, theirs = with_a_turn(line)
        # What it has read is not enough to pass on, so it reads again.
        thread = threading.Thread(target=connection._receive, args=(100,), daemon=True)
        thread.start()
        waiting.append((connection, theirs, thread))
    connection, provider = plain
    connection.begin_stream(line)

    provider.sendall(b"two")

    assert read_in_time(connection) == b"two"
    for other, theirs, thread in waiting:
        theirs.close()
        thread.join(10)
        other.close()


def test_a_connection_that_is_closed_gives_up_its_turn(plain: Pair) -> None:
    line = Line()
    for _ in range(MANY):
        other, theirs = with_a_turn(line)
        other.close()
        theirs.close()
    connection, provider = plain
    connection.begin_stream(line)
    provider.sendall(b"two")

    assert read_in_time(connection) == b"two"


def test_a_stream_waits_no_longer_than_it_may(plain: Pair) -> None:
    connection, _ = plain
    connection.wait_seconds = 0.1
    connection.begin_stream(Line())
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        connection._receive(100)

    assert 0.09 < time.monotonic() - began < 2


def test_a_stream_is_found_broken_when_the_portal_has_to_stop(plain: Pair) -> None:
    connection, _ = plain
    connection.begin_stream(Line())
    threading.Timer(0.1, connection.interrupt).start()

    assert connection._receive(100) == b""


def test_a_connection_carries_other_answers_after_a_stream(plain: Pair) -> None:
    connection, provider = plain
    connection.begin_stream(Line())
    connection.end_stream()

    began = time.monotonic()
    connection.until = began + 0.1
    with pytest.raises(TimeoutError):
        connection._receive(100)
    assert time.monotonic() - began < 2
    connection.until = None
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"")
    assert provider.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    threading.Timer(0.1, provider.sendall, [b"later"]).start()
    assert connection._receive(100) == b"later"


def test_what_tls_has_read_ahead_is_not_waited_for(encrypted: Pair) -> None:
    connection, provider = encrypted
    connection.begin_stream(Line())

    provider.sendall(b"one record, read in pieces")

    assert [connection._receive(11) for _ in range(3)] == [b"one record,", b" read in pi", b"eces"]


def test_a_tls_record_that_has_come_in_part_is_waited_for(tmp_path: Path) -> None:
    """The system tells of bytes to read, and TLS has nothing to give until it has seen all of them."""
    server, trusted = make_certificate(tmp_path)
    ours, wire = socket.socketpair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(incoming, outgoing, server_side=True)
    encrypting = Encrypting(ours, trusted)
    while True:
        try:
            theirs.do_handshake()
            break
        except ssl.SSLWantReadError:
            wire.sendall(outgoing.read())
            incoming.write(wire.recv(65536))
    wire.sendall(outgoing.read())
    connection = encrypting.done()
    connection.begin_stream(Line())
    theirs.write(b"a record in two parts")
    record = outgoing.read()

    wire.sendall(record[:-5])
    threading.Timer(0.2, wire.sendall, [record[-5:]]).start()

    assert connection._receive(100) == b"a record in two parts"
    connection.close()
    wire.close()
