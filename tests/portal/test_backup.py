"""Backup and restore as an operator uses them: while the portal serves, and into an empty instance."""

from __future__ import annotations

import contextlib
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator

import orjson
import pytest

from tests.neighbours.portal import Portal, running_portal
from tests.portal.calls import CHAT, HELLO, call
from tests.portal.test_durability import usage_rows


@contextlib.contextmanager
def load(portal: Portal, key: str) -> Iterator[list[str]]:
    """Call from four threads for the length of the block; gives the ids of the answered calls."""
    answered: list[str] = []
    stop = threading.Event()

    def work(streamed: bool) -> None:
        while not stop.is_set():
            status, headers, _ = call(portal.port, key, "POST", CHAT, {**HELLO, "stream": streamed})
            assert status == 200
            answered.append(headers["X-Request-Id"])

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


@pytest.fixture
def key(portal: Portal, new_key: Callable[..., str]) -> str:
    portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
    return new_key("load", "--test")


def test_a_backup_made_under_load_holds_all_that_was_answered_and_starts_elsewhere(portal: Portal, key: str) -> None:
    file = portal.instance_path.parent / "portal.backup"
    with load(portal, key) as answered:
        while len(answered) < 20:
            threading.Event().wait(0.05)
        before = list(answered)
        made = portal.command("backup", str(file))
        during = len(answered)
    assert made.returncode == 0, made.stderr
    assert "secret_key and master_key" in made.stderr
    assert during > len(before), "the portal did not answer while the backup was made"
    kept = requests_in(file)
    assert set(before) <= kept <= usage_rows(portal)
    refused = portal.command("restore", str(file), "--yes")
    assert (refused.returncode, "is serving" in refused.stderr) == (1, True), refused.stderr

    with running_portal({"ARKA_DEMO": "0"}, workers=2) as other:
        other.stop()
        for name in ("secret_key", "master_key"):
            shutil.copy(portal.instance_path / name, other.instance_path / name)
        restored = other.command("restore", str(file))
        assert restored.returncode == 0, restored.stderr
        other.start()
        assert usage_rows(other) == kept
        assert call(other.port, key)[0] == 200
        assert other.command("audit", "verify").returncode == 0
        # What is there now is not replaced unasked, nor by a file that is not whole.
        other.stop()
        before_restore = usage_rows(other)
        assert "--yes" in other.command("restore", str(file)).stderr
        file.write_bytes(file.read_bytes()[:-100])
        cut = other.command("restore", str(file), "--yes")
        assert (cut.returncode, "not a whole one" in cut.stderr) == (1, True), cut.stderr
        missing = other.command("restore", str(file) + "x", "--yes")
        assert (missing.returncode, "No such file" in missing.stderr) == (1, True), missing.stderr
        assert usage_rows(other) == before_restore


def requests_in(file: object) -> set[str]:
    """The ids of the calls that a backup holds."""
    with zipfile.ZipFile(str(file)) as archive:
        columns = orjson.loads(archive.read("manifest.json"))["tables"]["usage_record"]["columns"]
        place = columns.index("request_id")
        return {orjson.loads(line)[place] for line in archive.read("tables/usage_record.jsonl").splitlines()}
