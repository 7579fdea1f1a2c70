"""What a provider's failure becomes for the caller: our envelope, the provider's own words, none of its key.

| the provider | status | code |
| --- | --- | --- |
| refuses the key (401) | 502 | ``provider_rejected_key`` |
| has no credit left for it (402, or 429 ``insufficient_quota``) | 402 | ``provider_out_of_credit`` |
| limits the rate (429) | 429 | ``provider_rate_limited`` |
| refuses the request (400, 404, 409, 413, 422) | the same | ``provider_error`` |
| fails or does anything else | 502 | ``provider_error`` |
| sends something that is no answer, or more than anybody wants to keep | 502 | ``provider_error`` |
| cannot be reached, or not in time, or has just failed several times | 503 | ``provider_unreachable`` |

401 is never passed on, so that nobody takes it for a word about their own API key.
"""

from __future__ import annotations

import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

from services.errors import PortalError, ProviderFailed
from services.gateway.provider_answers import NO_CREDIT, error_in, state_seen, words_of
from services.gateway.providers import Provider
from services.secret import Secret

MOST_BYTES = 64 * 1024
_ABOUT_THE_REQUEST = {400, 404, 409, 413, 422}
_UNREACHABLE_RETRY_SECONDS = 5
# Where a provider that limits the rate does not tell.
_RATE_RETRY_SECONDS = 5
# openai's clients stop trying when they see this (https://github.com/openai/openai-python, _base_client.py).
_NO_RETRY = {"x-should-retry": "false"}


def unreachable(provider: Provider, reason: str) -> ProviderFailed:
    """The provider did not answer."""
    return ProviderFailed(
        f"{provider.title} could not be reached: {reason}.",
        status=503,
        code="provider_unreachable",
        retry_after=_UNREACHABLE_RETRY_SECONDS,
    )


def refusal(
    provider: Provider, status: int, retry_after: str | None, content: bytes, key: Secret | None
) -> PortalError:
    """The provider answered with something other than 200."""
    error = error_in(content)
    words = words_of(error, key or Secret(""))
    said = f"{provider.title} said: {words}" if words else f"{provider.title} answered with status {status}."
    if status == 401:
        return ProviderFailed(
            f"{provider.title} did not accept this workspace's provider key. {said}",
            code="provider_rejected_key",
            headers=_NO_RETRY,
        )
    if state_seen(status, error) == NO_CREDIT:
        return ProviderFailed(said, status=402, code="provider_out_of_credit", headers=_NO_RETRY)
    if status == 429:
        seconds = seconds_of(retry_after)
        return ProviderFailed(
            said,
            status=429,
            code="provider_rate_limited",
            retry_after=_RATE_RETRY_SECONDS if seconds is None else seconds,
        )
    if status in _ABOUT_THE_REQUEST:
        param = error.get("param")
        return ProviderFailed(said, status=status, param=param if isinstance(param, str) else None)
    return ProviderFailed(said, headers={} if status >= 500 else _NO_RETRY)


def left_alone(provider: Provider, seconds: int) -> ProviderFailed:
    """The provider has failed several times in a row and is not asked for a while."""
    return ProviderFailed(
        f"{provider.title} could not be reached: it has just failed several times in a row.",
        status=503,
        code="provider_unreachable",
        retry_after=seconds,
    )


def no_answer(provider: Provider, what: str) -> ProviderFailed:
    """The provider answered with status 200 and nothing that is an answer."""
    return ProviderFailed(f"{provider.title} answered with something that is {what}.")


def seconds_of(retry_after: str | None) -> int | None:
    """Return the seconds of a Retry-After header, which may be a date; None when it tells none.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if retry_after is None:
        return None
    if re.fullmatch(r"[0-9]{1,6}", retry_after.strip()):
        return int(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0, math.ceil(moment.timestamp() - time.time()))


def broken_stream(error: dict[str, Any], key: Secret | None) -> ProviderFailed:
    """The provider told of a failure in the middle of a stream."""
    words = words_of(error, key or Secret(""))
    said = f"The provider said: {words}" if words else None
    return ProviderFailed(said or "The provider failed in the middle of its answer.")


def as_event(failure: PortalError, request_id: str) -> dict[str, Any]:
    """Return the ``error`` object that ends a broken stream."""
    return {
        "type": failure.type,
        "code": failure.code,
        "message": failure.message,
        "param": None,
        "retry_after": None,
        "details": {},
        "request_id": request_id,
    }
