"""The worked example: a real nginx guards a small service with the portal's keys."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from config import ROOT
from tests.neighbours.portal import running_portal
from tests.neighbours.processes import ReservedPort, wait_until
from tests.portal.calls import PASSWORD, call

EXAMPLE = ROOT / "examples" / "nginx"


class Guarded:
    """The example running: its portal, and nginx's port."""

    def __init__(self, portal: object, port: int) -> None:
        self.portal = portal
        self.port = port

    def key(self, name: str, *options: str) -> str:
        command = ["key", "create", "--workspace", "alice", "--name", name, "--test", *options]
        result = self.portal.command(*command)  # type: ignore[attr-defined]
        assert result.returncode == 0, result.stderr
        return str(result.stdout.strip())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with running_portal({"ARKA_DEMO": "0"}) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "agency")
        for name in ("emails:send", "tasks:write"):
            made = portal.command("scope", "define", "--workspace", "alice", name, f"Use {name}.")
            assert made.returncode == 0, made.stderr
        with nginx_before(portal.port, tmp_path_factory.mktemp("nginx")) as port:
            yield Guarded(portal, port)


@contextlib.contextmanager
def nginx_before(portal_port: int, folder: Path) -> Iterator[int]:
    """Run the example's service and its nginx, which asks at this port, and yield nginx's own."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is missing: apt install nginx-light")
    (folder / "tmp").mkdir()
    ports = [ReservedPort(), ReservedPort()]
    started = [
        subprocess.Popen([sys.executable, str(EXAMPLE / "service.py"), str(ports[0].number)]),
        subprocess.Popen([nginx, "-p", str(folder), "-c", str(config_in(folder, portal_port, ports))]),
    ]
    try:
        assert wait_until(lambda: all(answers(port.number) for port in ports), 10)
        yield ports[1].number
    finally:
        for process in started:
            process.terminate()
            process.wait(10)
        for port in ports:
            port.release()


def config_in(folder: Path, portal_port: int, ports: list[ReservedPort]) -> Path:
    """The example's own file with the ports of this test."""
    text = (EXAMPLE / "nginx.conf").read_text()
    for given, used in (("5000", portal_port), ("9000", ports[0].number), ("8080", ports[1].number)):
        assert f"127.0.0.1:{given};" in text
        text = text.replace(f"127.0.0.1:{given};", f"127.0.0.1:{used};")
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


def answers(port: int) -> bool:
    try:
        return call(port, None, path="/none")[0] in (404, 501)
    except OSError:
        return False


def test_a_key_with_the_scope_reaches_the_service_which_never_sees_the_key(guarded: Guarded) -> None:
    key = guarded.key("mailer", "--scope", "emails:send")
    status, _, answer = call(guarded.port, key, "POST", "/emails", {"to": "a@b.example"}, **{"X-Arka-Key-Id": "forged"})
    assert (status, answer["done"]) == (201, "/emails")
    assert answer["by"].startswith("key_")
    assert key[13:] not in str(answer["saw"])


def test_two_keys_at_once_are_refused_as_the_portal_refuses_them(guarded: Guarded) -> None:
    key = guarded.key("twice", "--scope", "tasks:write")
    status, _, answer = call(guarded.port, key, "POST", "/tasks", {}, **{"X-API-Key": key})
    assert (status, answer["error"]["code"]) == (400, "ambiguous_credentials")


def test_a_missing_scope_is_refused_word_for_word(guarded: Guarded) -> None:
    key = guarded.key("mailer only", "--scope", "emails:send")
    status, _, answer = call(guarded.port, key, "POST", "/tasks", {})
    assert status == 403
    assert answer["error"]["message"] == "Scope 'tasks:write' is required for this endpoint"


def test_no_key_is_401_and_both_header_forms_work(guarded: Guarded) -> None:
    status, headers, answer = call(guarded.port, None, "POST", "/tasks", {})
    assert (status, answer["error"]["code"]) == (401, "authentication_required")
    assert headers["WWW-Authenticate"].startswith("Bearer")
    key = guarded.key("worker", "--scope", "tasks:write")
    assert call(guarded.port, None, "POST", "/tasks", {}, **{"X-API-Key": key})[0] == 201


def test_an_expired_and_an_ended_key_say_so(guarded: Guarded) -> None:
    key = guarded.key("short-lived", "--scope", "tasks:write")
    assert call(guarded.port, key, "POST", "/tasks", {})[0] == 201
    listed = guarded.portal.command("key", "list").stdout.splitlines()  # type: ignore[attr-defined]
    key_id = next(line.split("\t")[0] for line in listed if line.endswith("\tshort-lived"))
    guarded.portal.command("key", "revoke", key_id)  # type: ignore[attr-defined]
    status, _, answer = call(guarded.port, key, "POST", "/tasks", {})
    assert (status, answer["error"]["code"]) == (403, "invalid_api_key")


def test_over_the_rate_is_429_with_the_wait(guarded: Guarded) -> None:
    key = guarded.key("busy", "--scope", "tasks:write")
    guarded.portal.command(  # type: ignore[attr-defined]
        "workspace", "set-plan", "alice", "agency", "--requests-per-minute", "1"
    )
    try:
        statuses = {call(guarded.port, key, "POST", "/tasks", {})[0] for _ in range(3)}
        assert 429 in statuses
        assert int(call(guarded.port, key, "POST", "/tasks", {})[1]["Retry-After"]) >= 1
    finally:
        guarded.portal.command("workspace", "set-plan", "alice", "agency")  # type: ignore[attr-defined]


def test_a_path_that_is_not_listed_is_not_let_through(guarded: Guarded) -> None:
    key = guarded.key("curious", "--scope", "tasks:write")
    assert call(guarded.port, key, "POST", "/secrets", {})[0] == 404


class ChangesItsMind(http.server.BaseHTTPRequestHandler):
    """In the portal's place: refuses the first question about a key, whose name tells with what, and no later one."""

    asked: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        key = self.headers.get("Authorization", "")
        self.send_response(204 if key in self.asked else int(key.removeprefix("Bearer ")))
        self.asked.add(key)
        self.send_header("X-Arka-Key-Id", "key_1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("first", "told"), [(401, 401), (403, 403), (429, 429), (400, 400), (500, 503), (503, 503)])
def test_a_refusal_whose_cause_is_gone_a_moment_later_is_no_success(
    forgetful_nginx: int, first: int, told: int
) -> None:
    """Else the caller took for done what the service has never seen."""
    status, headers, answer = call(forgetful_nginx, str(first), "POST", "/tasks", {})
    assert (status, answer) == (told, b"")
    assert headers["Retry-After"] == "1"
    # The portal has changed its mind: now it is done.
    assert call(forgetful_nginx, str(first), "POST", "/tasks", {})[0] == 201


@pytest.fixture(scope="module")
def forgetful_nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ChangesItsMind) as portal:
        threading.Thread(target=portal.serve_forever).start()
        try:
            with nginx_before(portal.server_address[1], tmp_path_factory.mktemp("forgetful")) as port:
                yield port
        finally:
            portal.shutdown()
