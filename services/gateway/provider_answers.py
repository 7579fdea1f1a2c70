"""What a provider's answer tells: its error in its own words, without the key, and the state of the key.

| the provider | state of the key |
| --- | --- |
| answers (200) | ``valid`` |
| 402, the type ``insufficient_quota``, or a limit of money in the words | ``no_credit`` |
| 401 or 403 for a missing scope or permission | ``restricted`` |
| any other 401 | ``invalid`` |
| any other 403, unless it is about what the request says | ``restricted`` |
| any other 429 | ``rate_limited`` |
| anything else | nothing is told |

OpenAI answers a key that lacks a scope with 401 as well as with 403, and names its limits of money in ``code`` under
one ``type`` (https://platform.openai.com/docs/guides/error-codes). OpenRouter answers a key whose own limit is used up
with 402 or 403, and a prompt it flagged with 403 (https://openrouter.ai/docs/api-reference/errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from services.secret import Secret

VALID, NO_CREDIT, RESTRICTED, RATE_LIMITED = "valid", "no_credit", "restricted", "rate_limited"
INVALID, UNREACHABLE, CANNOT_DECRYPT, UNVERIFIED = "invalid", "unreachable", "cannot_decrypt", "unverified"

LONGEST_WORDS = 500
_MOST_READ = 4000
# So many characters in a row that a word and the key have in common are a part of the key.
_TELLING = 8

_MONEY_CODES = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
}
_MONEY_WORDS = re.compile(r"insufficient credits|key limit exceeded", re.IGNORECASE)
_SCOPE_WORDS = re.compile(r"missing scopes?|insufficient permissions", re.IGNORECASE)
_KEY_LIKE = re.compile(r"\S*(?:sk-|\*{3})\S*")


def error_in(content: bytes) -> dict[str, Any]:
    """Return the ``error`` object of an answer; empty when there is none."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {"message": error} if isinstance(error, str) else {}


def words_of(error: Mapping[str, Any], key: Secret) -> str:
    """Return what the error says, without the key; empty when it says nothing."""
    return without_key(str(error.get("message") or ""), key)


def without_key(words: str, key: Secret) -> str:
    """Leave out every word that shows the key or a part of it; providers quote it with its middle starred out."""
    value = key.reveal()
    shown = words[:_MOST_READ].split()
    return without_key_like(" ".join("[key]" if _shows(word, value) else word for word in shown))


def _shows(word: str, value: str) -> bool:
    if len(value) < 12:
        return bool(value) and value in word
    if value[:6] in word or value[-4:] in word:
        return True
    return any(word[start : start + _TELLING] in value for start in range(len(word) - _TELLING + 1))


def without_key_like(words: str) -> str:
    """Leave out every word that looks like a provider key or a part of one."""
    return _KEY_LIKE.sub("[key]", words)[:LONGEST_WORDS]


def state_seen(status: int, error: Mapping[str, Any]) -> str | None:
    """Return the state that an answer shows the key in, None when it tells nothing about it."""
    words = str(error.get("message") or "")
    if status == 200:
        return VALID
    if status == 402 or _MONEY_CODES & {str(error.get("code")), str(error.get("type"))}:
        return NO_CREDIT
    if status in (401, 403):
        return _refused(status, error, words)
    return RATE_LIMITED if status == 429 else None


def _refused(status: int, error: Mapping[str, Any], words: str) -> str | None:
    if _MONEY_WORDS.search(words):
        return NO_CREDIT
    if error.get("code") == "missing_scope" or _SCOPE_WORDS.search(words):
        return RESTRICTED
    if status == 401:
        return INVALID
    return None if _is_about_the_request(error) else RESTRICTED


def _is_about_the_request(error: Mapping[str, Any]) -> bool:
    """Whether a 403 is a moderator's, or one for a single model: another request with the same key may pass."""
    metadata = error.get("metadata")
    flagged = isinstance(metadata, Mapping) and ("reasons" in metadata or "flagged_input" in metadata)
    return flagged or error.get("code") == "model_not_found"
