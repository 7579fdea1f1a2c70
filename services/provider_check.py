"""Asking a provider whether a key works: a small real request, and what its answer says of the key.

| provider | what is asked |
| --- | --- |
| OpenAI | its list of models, which knows an invalid key; then one small call, which knows an account without credit |
| OpenRouter | its key endpoint, which tells the credit; without a limit there, one small call as well |
| any other | its list of models |

https://openrouter.ai/docs/api-reference/api-keys/get-current-api-key;
https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import orjson

from services.gateway.provider_answers import (
    NO_CREDIT,
    RESTRICTED,
    UNREACHABLE,
    UNVERIFIED,
    VALID,
    error_in,
    state_seen,
    words_of,
)
from services.gateway.providers import Provider
from services.gateway.upstream import Unreachable, Upstream
from services.secret import Secret

SECONDS = 10.0
_MOST_BYTES = 2_000_000
_MOST_CALLS = 3
_NANO = 1_000_000_000
_MOST_USD = 1_000_000_000
_TOO_LATE = "it did not answer in time"

# What a small call is made to: the cheapest first. Each gives way to the next when the key may not use it.
_OPENAI_MODELS = (
    "gpt-4.1-nano",
    "gpt-5-nano",
    "gpt-4o-mini",
    "gpt-4.1-mini",
    "gpt-5-mini",
    "gpt-3.5-turbo",
    "o4-mini",
    "gpt-4o",
)
_OPENROUTER_MODELS = ("mistralai/mistral-nemo", "openai/gpt-4.1-nano", "meta-llama/llama-3.1-8b-instruct")
# A key that may use none of those is tried with whatever chats.
_CHATS = re.compile(
    r"(gpt-|chatgpt-|o\d)(?!.*(audio|realtime|image|tts|transcribe|search|instruct|codex|pro|research))"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The state a key was found in, the provider's words without the key, and its credit if that was told.

    For ``unreachable`` the words are our half-sentence about why.
    """

    state: str
    words: str | None = None
    credit_nano_usd: int | None = None


def check(provider: Provider, key: Secret, upstream: Upstream) -> Finding:
    """Ask the provider about the key; answers within ``SECONDS``, whatever the provider does."""
    found: Future[Finding] = Future()
    question = _Question(provider, key, upstream, time.monotonic() + SECONDS)
    # The look-up of an address and a server that sends a byte now and then know no time-out of ours.
    threading.Thread(target=_answer, args=(question, found), name="provider check", daemon=True).start()
    try:
        return found.result(SECONDS)
    except TimeoutError:
        return Finding(UNREACHABLE, _TOO_LATE)


def _answer(question: _Question, found: Future[Finding]) -> None:
    try:
        found.set_result(_CHECKS.get(question.provider.key_check, _by_list)(question))
    except Unreachable as error:
        found.set_result(Finding(UNREACHABLE, error.reason))
    except BaseException as error:
        found.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Said:
    """One answer: its status, its JSON as far as it is an object, and what it says of the key."""

    status: int
    body: dict[str, Any]
    state: str | None
    words: str | None
    code: object

    def finding(self) -> Finding:
        if self.state is None:
            return Finding(UNREACHABLE, f"it answered with status {self.status}")
        return Finding(self.state, self.words)


@dataclass(frozen=True, slots=True)
class _Question:
    """A provider and the key it is asked about, with the moment by which all is to be over."""

    provider: Provider
    key: Secret
    upstream: Upstream
    deadline: float

    def get(self, path: str) -> _Said:
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> _Said:
        return self._ask("POST", path, orjson.dumps(body))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> _Said:
        answer = self.upstream.send(method, self.provider.url(path), self.key, body, read_seconds=self._left())
        content = b""
        try:
            for chunk in answer.chunks():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise Unreachable("its answer was too long")
                self._left()
        finally:
            answer.close()
        error = error_in(content)
        return _Said(
            answer.status,
            _object_in(content),
            state_seen(answer.status, error),
            words_of(error, self.key) or None,
            error.get("code"),
        )

    def _left(self) -> float:
        """Return the seconds that are left. Raises Unreachable when none are."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Unreachable(_TOO_LATE)
        return left


# ---- one function for each kind of provider


def _openai(question: _Question) -> Finding:
    listed = question.get("/models")
    if listed.state == RESTRICTED:
        # A key may be allowed to chat and not to list models.
        return _by_calling(question, _OPENAI_MODELS, "max_completion_tokens")
    if listed.state != VALID:
        return listed.finding()
    names = _names_in(listed)
    chosen = [name for name in _OPENAI_MODELS if name in names] or [name for name in names if _CHATS.match(name)]
    # A key for embeddings alone is accepted; whether the account has credit shows with the first call.
    return _by_calling(question, chosen, "max_completion_tokens") if chosen else Finding(VALID)


def _openrouter(question: _Question) -> Finding:
    said = question.get("/key")
    if said.state != VALID:
        return said.finding()
    facts = said.body.get("data")
    if not isinstance(facts, dict):
        raise Unreachable("its answer made no sense")
    if facts.get("is_management_key") is True or facts.get("is_provisioning_key") is True:
        return Finding(RESTRICTED, "This is a management key: it manages other keys and cannot call models.")
    left = _nano_usd(facts.get("limit_remaining"))
    if left is not None and left <= 0:
        return Finding(NO_CREDIT, "The credit limit of this key is used up.", left)
    if left is not None:
        return Finding(VALID, None, left)
    if facts.get("is_free_tier") is True:
        return Finding(VALID, "This account has not bought credit: only free models answer.")
    return _by_calling(question, _OPENROUTER_MODELS, "max_tokens")


def _by_list(question: _Question) -> Finding:
    said = question.get("/models")
    if said.status in (404, 405):
        return Finding(UNVERIFIED, "It has no list of models to try the key with.")
    return said.finding()


_CHECKS: dict[str, Callable[[_Question], Finding]] = {"openai": _openai, "openrouter": _openrouter}


def _by_calling(question: _Question, models: Sequence[str], limit_name: str) -> Finding:
    """Make one small call, with the next model when the key may not use one.

    A reasoning model that may not think for long answers 400, that it could not finish: it has worked nevertheless,
    as with every 400, for a key that is refused or has no credit does not get that far.
    """
    refused: str | None = None
    for model in models[:_MOST_CALLS]:
        message = {"role": "user", "content": "Hi"}
        said = question.post("/chat/completions", {"model": model, "messages": [message], limit_name: 16})
        if said.status == 400:
            return Finding(VALID)
        if said.state is not None or said.status not in (403, 404):
            return said.finding()
        refused = said.words
    return Finding(RESTRICTED, refused)


def _names_in(listed: _Said) -> list[str]:
    rows = listed.body.get("data")
    if not isinstance(rows, list):
        raise Unreachable("its answer made no sense")
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _nano_usd(dollars: object) -> int | None:
    if isinstance(dollars, bool) or not isinstance(dollars, int | float) or not abs(dollars) < _MOST_USD:
        return None
    return round(dollars * _NANO)


def _object_in(content: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
