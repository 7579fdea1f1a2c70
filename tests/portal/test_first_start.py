"""An empty instance starts with one command and ends with a call that works."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config import ROOT, load
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import temporary_folder, wait_until
from tests.neighbours.storage import GROWN
from tests.portal.database import tables


def shown(portal: Portal) -> str:
    assert wait_until(lambda: "Ctrl-C" in portal.stdout(), 10)
    return portal.stdout()


def curl_of(text: str) -> list[str]:
    found = re.search(r"^  curl .*?(?=^$)", text, re.MULTILINE | re.DOTALL)
    assert found
    return shlex.split(found[0].replace("\\\n", " "))


def state(portal: Portal) -> dict[str, object]:
    """Everything an instance keeps that a restart must not change."""
    # Who serves, and who last did which background work, changes all the time.
    rows = {name: rows for name, rows in tables(portal).items() if name not in ("audit_check", "job", "server_process")}
    return rows | {name: (portal.instance_path / name).read_text() for name in ("secret_key", "master_key")}


def test_the_call_that_is_shown_works_as_pasted_and_streams(tmp_path: Path) -> None:
    with running_portal(from_nothing=True) as portal:
        command = [*curl_of(shown(portal)), "-s"]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)
        assert answer["object"] == "chat.completion"
        streaming = [word.replace('"messages"', '"stream": true, "messages"') for word in command]
        streamed = subprocess.run([*streaming, "-N"], capture_output=True, check=True, timeout=20).stdout
        assert streamed.startswith(b"data: {")
        assert streamed.endswith(b"data: [DONE]\n\n")


def test_started_again_it_is_up_quickly_and_changes_nothing() -> None:
    with running_portal(from_nothing=True) as portal:
        first = shown(portal)
        before = state(portal)
        portal.stop()
        began = time.monotonic()
        portal.start(from_nothing=True)
        # About 3 seconds on a machine of its own; tests share theirs.
        assert time.monotonic() - began < 10
        assert wait_until(lambda: portal.stdout().count("Ctrl-C") == 2, 10)
        second = portal.stdout()[len(first) :]
        portal.stop()
        assert state(portal) == before
    link = re.compile(r"/setup/\S+")
    assert link.findall(first) == link.findall(second)
    assert "curl" not in second


def test_without_the_demo_there_is_only_the_set_up_link() -> None:
    with running_portal({"ARKA_DEMO": "0"}, from_nothing=True) as portal:
        assert "/setup/" in shown(portal)
        assert "curl" not in portal.stdout()
        assert portal.command("workspace", "list").stdout == ""


@pytest.mark.parametrize(
    ("address", "is_warned"), [("http://portal.example.com", True), ("https://portal.example.com", False)]
)
def test_who_serves_pages_over_plain_http_is_told_what_that_means(address: str, is_warned: bool) -> None:
    with running_portal({"ARKA_DEMO": "0", "ARKA_PUBLIC_URL": address}) as portal:
        assert ("can be read on the way" in shown(portal)) == is_warned
    with running_portal({"ARKA_DEMO": "0"}) as portal:
        assert "can be read on the way" not in shown(portal)


def test_a_wrong_setting_stops_the_start_with_a_sentence() -> None:
    with running_portal(from_nothing=True) as portal:
        portal.stop()
        portal.environment["ARKA_WORKERS"] = "many"
        result = portal.command("serve")
    assert result.returncode != 0
    assert "ARKA_WORKERS must be a whole number from 1 to 256." in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_said() -> None:
    with running_portal({"ARKA_DEMO": "0"}, from_nothing=True) as portal:
        result = portal.command("serve")
        assert result.returncode != 0
        assert f"port {portal.port}" in result.stderr
        assert "ARKA_PORT" in result.stderr


@pytest.mark.parametrize("host", ["nosuch.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_said(tmp_path: Path, port: int, host: str) -> None:
    result = Portal({"ARKA_HOST": host}, tmp_path, port).command("serve")
    assert result.returncode != 0
    assert f"Cannot listen on {host} (" in result.stderr
    assert "ARKA_HOST" in result.stderr
    assert "ARKA_PORT" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_name_of_this_machine_will_do_as_host_for_every_worker_and_is_shown() -> None:
    with running_portal({"ARKA_DEMO": "0", "ARKA_HOST": "localhost"}, workers=1) as portal:
        assert f"http://localhost:{portal.port}/setup/" in shown(portal)
        assert wait_until(lambda: len(workers_of(portal)) == 1, 20)
        (worker,) = workers_of(portal)
        os.kill(worker, signal.SIGKILL)
        assert wait_until(lambda: len(set(workers_of(portal)) - {worker}) == 1, 20)
        assert wait_until(portal._is_healthy, 20)


def test_a_portal_on_all_addresses_shows_one_that_can_be_opened_and_warns() -> None:
    with running_portal({"ARKA_DEMO": "0", "ARKA_HOST": "0.0.0.0"}, workers=1) as portal:
        told = shown(portal)
        assert f"http://localhost:{portal.port}/setup/" in told
        assert "Note: over plain HTTP, passwords" in told
        assert "0.0.0.0" not in told


# As a user who may read the folder and not write in it; root may do both. What is loaded later than the rest may lie
# where that user reads nothing.
SERVE_AS_NOBODY = """
import encodings.idna, os, sys
import app
from flask.cli import main

if os.getuid() == 0:
    os.setuid(65534)
sys.argv = ["flask", "--app", "app", "serve"]
main()
"""


@pytest.mark.embedded
def test_an_instance_folder_that_cannot_be_written_is_said(port: int) -> None:
    with temporary_folder("arka-portal-") as folder:
        portal = Portal({}, folder, port)
        # Makes the keys.
        load(portal.environment)
        for path in portal.instance_path.iterdir():
            path.chmod(0o444)
        folder.chmod(0o755)
        portal.instance_path.chmod(0o555)
        result = subprocess.run(
            [sys.executable, "-c", SERVE_AS_NOBODY],
            env=portal.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        portal.instance_path.chmod(0o755)
    assert result.returncode != 0
    assert f"ARKA_INSTANCE_PATH: {portal.instance_path} cannot be written: Permission denied." in result.stderr
    assert "Traceback" not in result.stderr


def test_killed_workers_come_back_one_or_all_of_them() -> None:
    with running_portal({"ARKA_DEMO": "0"}, from_nothing=True) as portal:
        shown(portal)
        assert wait_until(lambda: len(workers_of(portal)) == 2, 20)
        workers = workers_of(portal)
        os.kill(workers[0], signal.SIGKILL)
        assert wait_until(lambda: len(set(workers_of(portal)) - set(workers)) == 1, 20)
        for pid in workers_of(portal):
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: len(set(workers_of(portal)) - set(workers)) == 2, 20)
        assert wait_until(portal._is_healthy, 20)
        assert portal.is_running()
        assert portal.stop() == 0


def test_when_the_watching_process_is_killed_no_worker_is_left() -> None:
    with running_portal({"ARKA_DEMO": "0"}, from_nothing=True) as portal:
        shown(portal)
        workers = workers_of(portal)
        os.kill(portal.pid, signal.SIGKILL)
        assert wait_until(lambda: not {pid for pid, _, _ in processes()} & set(workers), 20)


def processes() -> list[tuple[int, int, str]]:
    """Return process, parent and command line of every process that is alive."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return [(int(pid), int(parent), args) for pid, parent, stat, args in rows if stat[0] != "Z"]


def workers_of(portal: Portal) -> list[int]:
    """Return the worker processes of a portal that has greeted: the children of the one that was started."""
    return [pid for pid, parent, _ in processes() if parent == portal.pid]


def test_what_an_instance_keeps_is_for_its_owner_only(tmp_path: Path) -> None:
    shared = tmp_path / "instance"
    shared.mkdir(mode=0o755)
    with running_portal({"ARKA_INSTANCE_PATH": str(shared)}, from_nothing=True) as portal:
        shown(portal)
        subprocess.run([*curl_of(portal.stdout()), "-s"], check=True, timeout=20, stdout=subprocess.DEVNULL)
        kept = {str(path.relative_to(shared)): path.stat().st_mode & 0o777 for path in shared.rglob("*")}
        folders = {str(path.relative_to(shared)) for path in shared.rglob("*") if path.is_dir()}
    assert {"secret_key", "master_key"} | (set() if GROWN else {"portal.db", "limits.db"}) <= set(kept)
    assert kept == {name: 0o700 if name in folders else 0o600 for name in kept}
