"""The callers of the soak: what they ask for, when, and what they see."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import threading
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.neighbours.fake_provider import OPENAI_KEY
from tests.neighbours.portal import Portal

CHAT = "/v1/chat/completions"
KEY_LIMIT = 120
PASSWORD = "correct horse battery staple"
EMAIL = "soak@northwind.example"
_MESSAGES = [{"role": "user", "content": "one two three four five"}]
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Keys:
    """What the callers show: keys, one that nobody knows, one with a limit, and the cookie of a person signed in."""

    live: str
    limited: str
    unknown: str
    cookie: str


@dataclass
class Seen:
    """What became of the calls."""

    codes: Counter[str] = field(default_factory=Counter)
    # The ids of answers that have to have a usage row.
    answered: list[str] = field(default_factory=list)
    # When the limited key's calls that passed were sent and answered.
    limited: list[tuple[float, float]] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    broken: int = 0

    @property
    def total(self) -> int:
        return sum(self.codes.values()) + self.broken

    @classmethod
    def all_of(cls, several: Sequence[Seen]) -> Seen:
        together = cls()
        for one in several:
            together.codes += one.codes
            together.answered += one.answered
            together.limited += one.limited
            together.broken += one.broken
            for kind, times in one.seconds.items():
                together.seconds[kind] += times
        return together


class Timetable:
    """When the next call is to be sent; None when it is over."""

    def __init__(self, rate: float, seconds: float) -> None:
        self.rate = rate
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self._ends = self._began + seconds

    @classmethod
    def steady(cls, rate: float, seconds: float) -> Timetable:
        return cls(rate, seconds)

    @classmethod
    def as_fast_as_can_be(cls, seconds: float) -> Timetable:
        return cls(float("inf"), seconds)

    def next(self) -> tuple[int, float] | None:
        number = next(self._numbers)
        at = self._began + number / self.rate
        return None if max(at, time.monotonic()) >= self._ends else (number, at)


class Caller(threading.Thread):
    """One caller with a kept connection."""

    def __init__(self, port: int, keys: Keys, timetable: Timetable) -> None:
        super().__init__(daemon=True)
        self.seen = Seen()
        self._keys = keys
        self._timetable = timetable
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def run(self) -> None:
        while (turn := self._timetable.next()) is not None:
            number, at = turn
            time.sleep(max(0.0, at - time.monotonic()))
            kind, ask = MIX[number % len(MIX)]
            self._call(kind, *ask(self._keys))
        self._connection.close()

    def _call(self, kind: str, method: str, path: str, body: Any, headers: dict[str, str]) -> None:
        sent = time.monotonic()
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), {**headers, **_JSON})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.seen.broken += 1
            self._connection.close()
            # As clients do: not at once again.
            time.sleep(0.05)
            return
        answered = time.monotonic()
        self.seen.seconds[kind].append(answered - sent)
        code = str(response.status)
        if kind == "stream" and response.status == 200 and not content.endswith(b"data: [DONE]\n\n"):
            # A worker that is killed breaks the transfer off; an end without the mark would be another matter.
            code = "5 stream without an end"
        self.seen.codes[code] += 1
        if response.status == 200 and path.startswith("/v1/"):
            self.seen.answered.append(response.headers["X-Request-Id"])
        if kind == "limited" and response.status == 200:
            self.seen.limited.append((sent, answered))


Request = tuple[str, str, Any, dict[str, str]]


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _chat(keys: Keys) -> Request:
    return "POST", CHAT, {"model": "gpt-4o", "messages": _MESSAGES}, _bearer(keys.live)


def _stream(keys: Keys) -> Request:
    return "POST", CHAT, {"model": "gpt-4o", "messages": _MESSAGES, "stream": True}, _bearer(keys.live)


def _embeddings(keys: Keys) -> Request:
    return "POST", "/v1/embeddings", {"model": "text-embedding-3-small", "input": "one two"}, _bearer(keys.live)


def _models(keys: Keys) -> Request:
    return "GET", "/v1/models", None, _bearer(keys.live)


def _verify(keys: Keys) -> Request:
    return "POST", "/v1/keys/verify", {"key": keys.live}, _bearer(keys.live)


def _unknown(keys: Keys) -> Request:
    return "GET", "/v1/models", None, _bearer(keys.unknown)


def _limited(keys: Keys) -> Request:
    return "GET", "/v1/models", None, _bearer(keys.limited)


def _page(keys: Keys) -> Request:
    return "GET", "/keys", None, {"Cookie": keys.cookie}


# In turn. The limited key is asked for several times what it may.
_PARTS: tuple[tuple[int, str, Callable[[Keys], Request]], ...] = (
    (9, "chat", _chat),
    (2, "stream", _stream),
    (2, "embeddings", _embeddings),
    (2, "models", _models),
    (2, "verify", _verify),
    (1, "unknown key", _unknown),
    (1, "limited", _limited),
    (1, "page", _page),
)
MIX = [(kind, ask) for times, kind, ask in _PARTS for _ in range(times)]


def prepare(portal: Portal) -> Keys:
    """Make a workspace with a connected provider, its keys, and somebody who is signed in."""
    command = portal.command
    command("user", "create", EMAIL, input=PASSWORD + "\n")
    command("workspace", "set-plan", "soak", "enterprise", "--requests-per-minute", "1000000")
    connected = command("provider", "set", "--workspace", "soak", "openai", input=OPENAI_KEY)
    made = command("key", "create", "--workspace", "soak", "--name", "everything")
    if connected.returncode or made.returncode:
        raise RuntimeError(connected.stderr + made.stderr)
    live = made.stdout.strip()
    wanted = {"name": "limited", "kind": "secret", "environment": "live", "scopes": ["models:read"]}
    limit = {"restrictions": {"requests_per_minute": KEY_LIMIT}}
    limited = _ask(portal, "POST", "/v1/keys", wanted | limit, _bearer(live))["key"]
    gone = _ask(portal, "POST", "/v1/keys", wanted | {"name": "gone"}, _bearer(live))
    _ask(portal, "DELETE", f"/v1/keys/{gone['id']}", None, _bearer(live))
    return Keys(live, limited, gone["key"], _signed_in(portal))


def _ask(portal: Portal, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=30)
    connection.request(method, path, None if body is None else json.dumps(body), {**headers, **_JSON})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path}: {response.status} {content[:300]!r}")
    return json.loads(content)


def _signed_in(portal: Portal) -> str:
    """Sign in by the form, as a browser does, and return the cookies."""
    connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=30)
    connection.request("GET", "/sign-in")
    response = connection.getresponse()
    page = response.read().decode()
    cookies = dict(_cookies(response))
    fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page))
    fields |= {"email": EMAIL, "password": PASSWORD}
    shown = "; ".join(f"{name}={value}" for name, value in cookies.items())
    headers = {"Cookie": shown, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/sign-in", urllib.parse.urlencode(fields), headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status != 303:
        raise RuntimeError(f"sign-in: {response.status}")
    cookies |= dict(_cookies(response))
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def _cookies(response: http.client.HTTPResponse) -> list[tuple[str, str]]:
    told = response.headers.get_all("Set-Cookie") or []
    return [(one.split("=", 1)[0], one.split("=", 1)[1].split(";")[0]) for one in told]
