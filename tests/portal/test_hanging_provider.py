"""A provider that hangs keeps its own callers waiting, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.neighbours.fake_provider import OPENAI_KEY, FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.portal.calls import CHAT, HELLO, PASSWORD, call
from tests.portal.test_stopping import Background

CALLS = 40


@pytest.fixture
def portal(storage: dict[str, str], provider: FakeProvider) -> Iterator[Portal]:
    settings = {"ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": provider.openai_base_url, "ARKA_STOP_SECONDS": "2"}
    with running_portal(storage | settings, workers=2) as portal:
        yield portal


@pytest.mark.alone
def test_forty_calls_that_hang_leave_others_answered_within_two_seconds(portal: Portal, provider: FakeProvider) -> None:
    command = portal.command
    command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
    command("workspace", "set-plan", "alice", "agency")
    command("provider", "set", "--workspace", "alice", "openai", input=OPENAI_KEY)
    key = command("key", "create", "--workspace", "alice", "--name", "live").stdout.strip()
    hanging = {**HELLO, "model": "fault-hang:60"}
    waiting = [Background(lambda: call(portal.port, key, "POST", CHAT, hanging)) for _ in range(CALLS)]
    assert wait_until(lambda: provider.in_flight >= CALLS, 20)
    for method, path, body in [("GET", "/v1/models", None), ("POST", CHAT, HELLO), ("GET", "/sign-in", None)]:
        began = time.monotonic()
        assert call(portal.port, key, method, path, body)[0] == 200
        assert time.monotonic() - began < 2, path
    assert provider.in_flight >= CALLS
    assert portal.stop(20) == 0
    assert {one.wait()[0] for one in waiting} == {503}
