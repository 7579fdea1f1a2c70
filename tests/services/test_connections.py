"""Idle connections to providers are kept as long as they are of use."""

from __future__ import annotations

import socket
import time
from contextlib import closing

import pytest

from services.gateway import connections
from services.gateway.connections import Connections, Origin


def test_connections_that_a_rush_has_left_are_closed_while_others_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LONGEST_IDLE_SECONDS", 0.2)
    pool = Connections(connect_seconds=5)
    with closing(socket.create_server(("127.0.0.1", 0))) as provider:
        origin = Origin("127.0.0.1", provider.getsockname()[1], encrypted=False)
        rush = [pool.open(origin, 5) for _ in range(5)]
        far_ends = [provider.accept()[0] for _ in rush]
        for connection in rush:
            pool.give_back(connection)
        for _ in range(8):
            time.sleep(0.05)
            taken = pool.take_idle(origin)
            assert taken is rush[-1], "the one that was used last"
            pool.give_back(taken)
        for far_end in far_ends[:-1]:
            far_end.settimeout(2)
            assert far_end.recv(1) == b"", "it was closed"
        far_ends[-1].settimeout(0.05)
        with pytest.raises(TimeoutError):
            far_ends[-1].recv(1)
        pool.interrupt()
        for far_end in far_ends:
            far_end.close()
