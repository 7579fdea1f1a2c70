"""The master key is changed while the portal serves: no call notices, and a rotation that is killed is run again."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.portal import FLASK, ROOT, Portal, running_portal
from tests.portal.calls import CHAT, HELLO, call


@pytest.fixture
def portal(storage: dict[str, str], provider: FakeProvider) -> Iterator[Portal]:
    addresses = {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
    }
    with running_portal({**storage, **addresses, "ARKA_DEMO": "0"}, workers=2) as portal:
        yield portal


@pytest.fixture
def live_key(portal: Portal, provider: FakeProvider, new_key: Callable[..., str]) -> str:
    """A live key of a workspace that is connected to both providers."""
    portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
    for name in ("openai", "openrouter"):
        saved = portal.command("provider", "set", "--workspace", "alice", name, input=provider.good_key + "\n")
        assert saved.returncode == 0, saved.stderr
    return new_key("live")


def test_no_call_fails_while_every_row_is_sealed_anew(portal: Portal, live_key: str) -> None:
    """The first rotation is killed as soon as its key seals; the next one finishes it."""
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            for model in ("gpt-4o", "anthropic/claude-sonnet-4"):
                statuses[call(portal.port, live_key, "POST", CHAT, {**HELLO, "model": model})[0]] += 1

    def let_calls_pass() -> None:
        before = sum(statuses.values())
        while sum(statuses.values()) < before + 20:
            time.sleep(0.01)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        rotate_and_kill(portal)
        let_calls_pass()
        rotated = portal.command("vault", "rotate", "--new-key")
        assert rotated.returncode == 0, rotated.stderr
        assert "2 of 2 secrets done." in rotated.stderr
        assert "2 resealed, 0 already current, 0 cannot be decrypted." in rotated.stderr
        let_calls_pass()
        assert "2 old master keys dropped." in portal.command("vault", "forget").stderr
        let_calls_pass()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert set(statuses) == {200}
    ring = [line.split("\t") for line in portal.command("vault", "status").stdout.splitlines()]
    assert [(role, rows) for _, role, _, rows in ring] == [("seals", "2")]


def rotate_and_kill(portal: Portal) -> None:
    """Begin a rotation and end it by SIGKILL once the new master key is there."""
    process = subprocess.Popen(
        [*FLASK, "vault", "rotate", "--new-key"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=portal.environment,
        cwd=ROOT,
    )
    assert process.stderr is not None
    assert "seals from now on" in process.stderr.readline()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stderr.close()


@pytest.mark.parametrize("storage", ["embedded"], indirect=True)
def test_doctor_and_rotate_name_a_row_that_cannot_be_decrypted_and_say_so_by_their_status(
    portal: Portal, live_key: str
) -> None:
    sound = portal.command("doctor", "--providers")
    assert sound.returncode == 0, sound.stdout
    assert all(line.startswith("ok ") for line in sound.stdout.splitlines())
    # As after a copy of the database without the key file that belongs to it.
    path = portal.instance_path / "master_key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    examined = portal.command("doctor")
    assert examined.returncode == 1
    assert "FAIL  vault: alice: the openai key cannot be decrypted; it has to be saved again" in examined.stdout
    rotated = portal.command("vault", "rotate")
    assert rotated.returncode == 1
    assert "0 resealed, 0 already current, 2 cannot be decrypted." in rotated.stderr
    assert "alice: the openrouter key cannot be decrypted" in rotated.stderr
    listed = portal.command("provider", "list").stdout.splitlines()
    assert [line.split("\t")[2] for line in listed] == ["cannot_decrypt", "cannot_decrypt"]
