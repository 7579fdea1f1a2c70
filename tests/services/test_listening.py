"""Where the portal listens: the address behind a name, and the claim to a port."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from services import listening
from tests.neighbours.processes import ReservedPort


@pytest.fixture
def port() -> Iterator[int]:
    reserved = ReservedPort()
    yield reserved.number
    reserved.release()


def answer_of_the_name_service(*addresses: str) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    return [(0, 0, 0, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        (["::1", "127.0.0.1"], "127.0.0.1"),
        (["10.0.0.9", "10.0.0.10", "9.0.0.1"], "9.0.0.1"),
        (["fe80::1%lo", "fd00::2"], "fd00::2"),
    ],
)
def test_of_the_addresses_of_a_name_one_is_taken_whatever_their_order(
    monkeypatch: pytest.MonkeyPatch, found: list[str], taken: str
) -> None:
    for order in (found, found[::-1]):
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *_, told=tuple(order), **__: answer_of_the_name_service(*told)
        )
        assert listening.address_of("name") == taken


def test_a_name_that_leads_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer_of_the_name_service("fe80::1%lo"))
    with pytest.raises(listening.NoAddress):
        listening.address_of("name")


def test_a_port_is_claimed_once_before_anybody_listens_and_free_again_at_the_end(port: int) -> None:
    for _ in range(2):
        with listening.claimed("127.0.0.1", port):
            with pytest.raises(listening.PortTaken), listening.claimed("127.0.0.1", port):
                pass
            with listening.claimed("127.0.0.2", port):
                pass


def test_who_has_a_claim_can_share_the_port(port: int) -> None:
    with listening.claimed("127.0.0.1", port):
        workers = [socket.socket() for _ in range(2)]
        for worker in workers:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
            worker.close()


def test_a_port_on_which_anything_listens_is_taken(port: int) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        with pytest.raises(listening.PortTaken), listening.claimed("127.0.0.1", port):
            pass


def test_a_child_that_inherits_a_claim_holds_it_to_its_end(port: int) -> None:
    read, write = os.pipe()
    with listening.claimed("127.0.0.1", port):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with pytest.raises(listening.PortTaken), listening.claimed("127.0.0.1", port):
        pass
    os.close(write)
    os.waitpid(child, 0)
    os.close(read)
    with listening.claimed("127.0.0.1", port):
        pass


def test_an_address_of_another_machine_is_no_address_of_this_one(port: int) -> None:
    with pytest.raises(listening.NoAddress), listening.claimed("192.0.2.1", port):
        pass
