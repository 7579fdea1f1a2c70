"""Secrets go through every path, in success and in failure, with the log at its most talkative; then all that the
portal wrote and answered is searched for them and for their halves."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from tests.neighbours.fake_provider import FAULTS, FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until
from tests.neighbours.storage import GROWN
from tests.pages.html import Html
from tests.portal.database import run, tables

EMAIL = "alice@northwind.example"
PASSWORD = "zq7 canary of a pass phrase"
WRONG_PASSWORD = "zq8 canary of another phrase"
PROMPT = "zq9canaryofaprompt"
# Of the right form, and nobody's.
WRONG_KEY = "sk-proj-Zq4WrongCanary7Hn2Vb8Kx3Mt9Rc5Lp1Wd6Gs0"
LATER_KEY = "sk-or-v1-a7c1e94b2d8f6053c9e2b4f7a1d6083e5c7b9f2a4d8e1063b5c7f9a2"
# Where mailed links lead.
MAILED = ("/confirm/", "/reset/", "/invitations/", "/email/")
# What takes no time; a cut or refused answer is a failure like any other.
QUICK_FAULTS = sorted(set(FAULTS) - {"hang", "stall", "slow", "big-line", "drip"})


@dataclass
class Visit:
    """A browser and a caller of a running portal, who keeps everything that was answered."""

    port: int
    answers: list[str] = field(default_factory=list)
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, hide: str = ""
    ) -> tuple[int, str, str]:
        """Return status, Location and body. ``hide`` is the key that this answer may show."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, {"Cookie": cookie, **(headers or {})})
            response = connection.getresponse()
            content = response.read().decode(errors="replace")
        except (http.client.HTTPException, ConnectionError) as error:
            self.answers.append(repr(error))
            return 0, "", ""
        finally:
            connection.close()
        for line in response.headers.get_all("Set-Cookie") or []:
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        # The page of a mailed link names its own address, to who has it.
        hide = hide or path.rpartition("/")[2] if path.startswith(MAILED) else hide
        self.answers.append(
            f"{response.headers}\n{content}".replace(hide, "") if hide else f"{response.headers}{content}"
        )
        return response.status, response.headers.get("Location", ""), content

    def open(self, path: str) -> Html:
        status, place, content = self.ask("GET", path)
        return self.open(place) if status in (302, 303) else Html(content)

    def submit(self, path: str, **values: str) -> Html:
        """Open a page, fill in its form, send it, and follow."""
        form = self.open(path).main_form
        data = urllib.parse.urlencode({**dict(form.fields), **values}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, place, content = self.ask("POST", form.action or path, data, headers)
        return self.open(place) if status in (302, 303) else Html(content)

    def call(self, key: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {key}", "Cookie": "", **headers}
        content = None if body is None else json.dumps(body).encode()
        status, _, answer = self.ask(method, f"/v1{path}", content, sent)
        return status, json.loads(answer) if answer.startswith("{") else answer


@pytest.fixture
def portal(provider: FakeProvider) -> Iterator[Portal]:
    settings = {
        "ARKA_DEMO": "0",
        "ARKA_LOG_LEVEL": "debug",
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
        "ARKA_PROVIDER_READ_SECONDS": "2",
        "ARKA_BREAKER_FAILURES": "1000",
    }
    with running_portal(settings, workers=2) as portal:
        yield portal


def test_no_secret_is_found_anywhere(portal: Portal, provider: FakeProvider, tmp_path: Path) -> None:
    said: list[str] = []

    def command(*arguments: str, input: str = "", shows: bool = False) -> str:
        done = portal.command(*arguments, input=input)
        said.append(done.stderr if shows else done.stdout + done.stderr)
        return done.stdout.strip()

    visit = Visit(portal.port)
    command("user", "create", EMAIL, input=PASSWORD + "\n")
    command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "100000")
    for key in (WRONG_KEY, provider.broke_key, provider.restricted_key, provider.openai_key):
        command("provider", "set", "--workspace", "alice", "openai", input=key)
    api_key = command("key", "create", "--workspace", "alice", "--name", "canary", shows=True)
    old_key = command("key", "create", "--workspace", "alice", "--name", "old", shows=True)
    test_key = command("key", "create", "--workspace", "alice", "--name", "test", "--test", shows=True)
    made = [api_key, old_key, test_key]
    assert all(key.startswith("arka_sk_") for key in made)

    use_pages(visit, provider, old_key)
    made += use_api(visit, provider, api_key, test_key)
    crash(visit, portal, api_key)
    backup = tmp_path / "backup"
    command("backup", str(backup))
    for words in (["vault", "rotate"], ["doctor"], ["audit", "verify"], ["key", "list", "--workspace", "alice"]):
        command(*words)
    portal.stop()

    provider_keys = [provider.openai_key, provider.broke_key, provider.restricted_key, WRONG_KEY, LATER_KEY]
    everywhere = {
        "the log": portal.output(),
        "a command": "".join(said),
        "an answer": "".join(visit.answers),
        **files(portal.instance_path),
        **unpacked(backup),
        "a table": cells(portal),
    }
    # Or nothing would have been searched.
    assert len(visit.answers) > 100
    assert "canary" in everywhere["a table"]
    assert '"level": "debug"' in everywhere["the log"]
    assert '"code": "internal_error"' in everywhere["an answer"] or '"code":"internal_error"' in everywhere["an answer"]
    marks = [mark for secret in (*made, *provider_keys, PASSWORD, WRONG_PASSWORD) for mark in marks_of(secret)]
    found = [(mark, place) for place, content in everywhere.items() for mark in marks if mark in content]
    # Prompts are passed on, and kept nowhere.
    found += [(PROMPT, place) for place, content in everywhere.items() if PROMPT in content and place != "an answer"]
    assert found == []


def test_what_a_mailed_link_holds_is_in_the_mail_alone(portal: Portal, tmp_path: Path) -> None:
    """It opens an account or a workspace."""
    portal.command("user", "create", EMAIL, input=PASSWORD + "\n")
    visit = Visit(portal.port)
    visit.submit("/sign-in", email=EMAIL, password=PASSWORD)
    tokens = use_mailed_links(visit, portal)
    backup = tmp_path / "backup"
    portal.command("backup", str(backup))
    portal.stop()
    everywhere = {
        "the log": portal.output(),
        "an answer": "".join(visit.answers),
        **files(portal.instance_path),
        **unpacked(backup),
        "a table": cells(portal),
    }
    mail = "".join(everywhere.pop(place) for place in list(everywhere) if place.endswith(".eml"))
    # Or nothing would have been searched.
    assert [token for token in tokens if token not in mail] == []
    assert '"level": "debug"' in everywhere["the log"]
    assert "/confirm/" in everywhere["the log"]
    marks = [half for token in tokens for half in (token[:21], token[21:])]
    spots = [(place, content.find(mark), mark) for place, content in everywhere.items() for mark in marks]
    assert [(place, everywhere[place][max(0, at - 120) : at + 60]) for place, at, _ in spots if at >= 0] == []


def use_pages(visit: Visit, provider: FakeProvider, old_key: str) -> None:
    visit.submit("/sign-in", email=EMAIL, password=WRONG_PASSWORD)
    assert "Overview" in visit.submit("/sign-in", email=EMAIL, password=PASSWORD).text
    for key in (WRONG_KEY, provider.broke_key, provider.restricted_key, provider.openai_key):
        visit.submit("/keys/providers/new", provider="openai", key=key, label="canary")
    provider.fault = "500"
    visit.submit("/keys/providers/new", provider="openrouter", key=LATER_KEY)
    visit.submit("/keys/providers/openai/update", key=WRONG_KEY)
    provider.fault = None
    for fault in ("401", "402", "403", "429", "500", "garbage", "reset"):
        provider.faults = [fault]
        visit.submit("/keys/providers/openai/update", key=WRONG_KEY)
    visit.submit("/keys/providers/openai/update", key=provider.openai_key)
    visit.submit("/playground", model="gpt-4o", message=PROMPT)
    provider.fault = "401"
    visit.submit("/playground", model="gpt-4o", message=PROMPT)
    provider.fault = None
    for query in (old_key, WRONG_KEY):
        visit.open("/keys?" + urllib.parse.urlencode({"q": query}))
        visit.open("/keys/refusals?" + urllib.parse.urlencode({"request_id": query}))
    visit.submit("/found-a-key", key=old_key, note=f"In a repository, beside {WRONG_KEY}")
    pages = [
        "/overview",
        "/keys",
        "/keys/providers",
        "/usage",
        "/usage.csv",
        "/playground",
        "/keys/scopes",
        "/quickstart",
    ]
    for page in pages:
        visit.open(page)


def use_api(visit: Visit, provider: FakeProvider, api_key: str, test_key: str) -> list[str]:
    """Call every kind of endpoint in every way that fails; return the keys that were made."""
    hello = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}
    assert visit.call(api_key, "POST", "/chat/completions", hello)[0] == 200
    for fault in [None, *QUICK_FAULTS]:
        provider.fault = fault
        for streamed in (False, True):
            visit.call(api_key, "POST", "/chat/completions", {**hello, "stream": streamed})
        visit.call(api_key, "POST", "/responses", {"model": "gpt-4o", "input": PROMPT})
        visit.call(api_key, "GET", "/models")
        visit.call(api_key, "PUT", "/providers/openai", {"key": WRONG_KEY})
        visit.call(api_key, "POST", "/providers/openai/test")
    provider.fault = None
    visit.call(test_key, "POST", "/chat/completions", hello)
    wanted = {"name": "by api", "kind": "secret", "environment": "live", "preset": "full"}
    key_id, first = reveal(visit, api_key, "/keys", wanted)
    _, second = reveal(visit, api_key, f"/keys/{key_id}/rotate", {"overlap": "1h"})
    made = [first, second]
    for body in ({"key": made[0], "scope": "chat:write"}, {"key": made[1]}, {"key": WRONG_KEY}, {"key": [made[0]]}):
        visit.call(api_key, "POST", "/keys/verify", body)
    odd_credentials(visit, api_key)
    visit.call(api_key, "DELETE", f"/keys/{key_id}")
    visit.call(made[1], "GET", "/models")
    return made


def use_mailed_links(visit: Visit, portal: Portal) -> list[str]:
    """Have every kind of link mailed, and use it, also as it is not meant; return what the links held."""
    guest = Visit(visit.port, answers=visit.answers)
    tokens = []

    def link(recipient: str, page: str) -> str:
        found = portal.mailed_link(recipient, page)
        tokens.append(found.rpartition("/")[2])
        return found

    guest.submit("/sign-up", email="erin@new.example")
    confirm = link("erin@new.example", "/confirm/")
    for path in (f"{confirm}x", f"/overview{confirm}", f"{confirm}?next={confirm}", f"/sign-in?next={confirm}"):
        guest.ask("GET", path, headers={"Referer": f"http://x.example{confirm}"}, hide=tokens[-1])
    guest.submit(confirm, password="short")
    guest.submit(confirm, password=WRONG_PASSWORD)
    guest.open(confirm)
    guest.submit("/reset", email="erin@new.example")
    reset = link("erin@new.example", "/reset/")
    guest.submit(reset, password=WRONG_PASSWORD + " again")
    guest.open(reset)
    visit.submit("/team/invite", email="guest@else.example", role="viewer")
    invitation = link("guest@else.example", "/invitations/")
    Visit(visit.port, answers=visit.answers).open(invitation)
    visit.submit("/account/email", email="alice@else.example", password=PASSWORD)
    for recipient, page in ((EMAIL, "/email/undo/"), ("alice@else.example", "/email/")):
        # To who is not signed in, the way there leads over the sign-in page, which is told where to go on.
        Visit(visit.port, answers=visit.answers).ask("GET", link(recipient, page))
    # Nothing waits any more: what a message said is kept until it is sent.
    assert wait_until(lambda: not waiting_mail(portal), 15)
    assert len(set(tokens)) == 5
    return tokens


def reveal(visit: Visit, key: str, path: str, body: Any) -> tuple[str, str]:
    """Make a key, return its id and secret; the one answer that shows it is kept without it."""
    status, made = visit.call(key, "POST", path, body)
    assert status in (200, 201), made
    secret: str = made["key"]
    visit.answers[-1] = visit.answers[-1].replace(secret, "")
    return made["id"], secret


def odd_credentials(visit: Visit, key: str) -> None:
    """A key where it does not belong comes back in no answer and no line of the log."""
    quoted = urllib.parse.quote(key)
    visit.call(key, "GET", f"/models?api_key={quoted}&key={quoted}")
    visit.call(key, "GET", f"/models/{quoted}")
    visit.call(key, "GET", f"/keys/{quoted}")
    visit.call(key, "GET", f"/nothing/{quoted}")
    visit.call(key, "POST", "/chat/completions", {"model": key, "messages": [{"role": "user", "content": "x"}]})
    visit.call(key, "POST", "/keys", {"name": "x" * 70, "kind": key, "scopes": [key], key: 1})
    visit.call(key, "GET", "/models", **{"X-API-Key": key})
    basic = base64.b64encode(f"user:{key}".encode()).decode()
    for header in (f"Basic {basic}", f"Token {key}", key, f"Bearer {key}x", f"Bearer {key} {key}"):
        visit.ask("GET", "/v1/models", headers={"Authorization": header})
    visit.ask("POST", "/v1/chat/completions", b'{"model": "' + key.encode(), {"Authorization": f"Bearer {key}"})
    visit.ask("GET", f"/{quoted}")
    visit.ask(
        "GET", "/overview", headers={"Authorization": f"Bearer {key}", "Referer": f"http://x.example/?k={quoted}"}
    )


def crash(visit: Visit, portal: Portal, key: str) -> None:
    """Bring about an error that nobody foresees, with the key at hand."""
    run(portal, "UPDATE api_key SET allowed_networks = 'nonsense' WHERE name = 'canary'")
    assert visit.call(key, "POST", "/chat/completions", {"model": "gpt-4o", "messages": []})[0] == 500
    run(portal, "UPDATE api_key SET allowed_networks = '' WHERE name = 'canary'")


def waiting_mail(portal: Portal) -> int:
    return int(run(portal, "SELECT count(*) FROM mail_message WHERE sent_at IS NULL")[0][0])


def marks_of(secret: str) -> list[str]:
    """What would give a secret away: itself, its halves, and itself in base 64."""
    value = secret.rsplit("_", 1)[-1].removeprefix("sk-proj-").removeprefix("sk-or-v1-").removeprefix("sk-")
    half = len(value) // 2
    assert half >= 12
    return [secret, value[:half], value[half:], base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]]


def files(folder: Path) -> dict[str, str]:
    """Everything the portal wrote but its own two keys, which are what protects the rest."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("secret_key", "master_key")]
    assert GROWN or "portal.db" in {path.name for path in found}
    return {f"the file {path.name}": path.read_bytes().decode("latin-1") for path in found}


def unpacked(backup: Path) -> dict[str, str]:
    """The backup as it lies there, and what is in it."""
    assert backup.stat().st_size > 1000
    found = {"the backup": backup.read_bytes().decode("latin-1")}
    with zipfile.ZipFile(backup) as archive:
        return found | {f"{name} in the backup": archive.read(name).decode("latin-1") for name in archive.namelist()}


def cells(portal: Portal) -> str:
    values = (value for rows in tables(portal).values() for row in rows for value in row)
    return "\n".join(value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in values)
