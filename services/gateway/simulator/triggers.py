"""Words in a prompt that rehearse a failure, such as ``simulate:429:30``. ``docs/simulator.md`` lists them.

They count only in the user's last message, so that a conversation can go on after one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from services import spending, spending_counters, stopping
from services.errors import PortalError, ProviderFailed, RateLimited, ServiceUnavailable, SpendingLimitReached
from services.gate import REASONS
from services.money import NANO_PER_USD
from services.parts import parts
from services.permissions import Scope

# The plain word at its beginning lets the search run through ten megabytes in no time.
_TRIGGER = re.compile(
    r"simulate:(401|402|403|429:until|429|503|slow|cut|provider-(?:401|402|429|500|timeout))"
    r"(?::(\d{1,10}(?:\.\d{1,3})?))?(?![\w-])"
)
_RETRY_SECONDS = 30
_LIMIT_NANO_USD = 500 * NANO_PER_USD
_MOST_RETRY_SECONDS = 3600
_SECONDS_PER_EVENT = 0.5
_MOST_SECONDS_PER_EVENT = 5.0
_MOST_SECONDS = 30.0
_UNREACHABLE_RETRY_SECONDS = 5
# As on the live way: openai's clients stop trying when they see this.
_NO_RETRY = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True)
class Pace:
    """How an answer is told: with a pause before each event, and only the first half of it."""

    seconds: float = 0
    cut: bool = False

    def stream(self, events: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the events in this pace; after half a minute of pauses the rest comes at once."""
        if self.cut:
            told = list(events)
            events = iter(told[: max(1, len(told) // 2)])
        left = _MOST_SECONDS
        for event in events:
            left -= _pause(min(self.seconds, left))
            yield event

    def whole(self, words: int) -> None:
        """Wait as long as the same answer would take as a stream. Raises ProviderFailed when it is to be cut."""
        if self.cut:
            raise _unreachable("the connection failed")
        _pause(min(self.seconds * words, _MOST_SECONDS))


def rehearse(text: str, created: int) -> Pace:
    """Do what the trigger words in a prompt ask for: raise the PortalError, or return the pace of the answer."""
    pace = Pace()
    for match in _TRIGGER.finditer(text):
        name, number = match[1], float(match[2]) if match[2] else None
        if name == "slow":
            seconds = _SECONDS_PER_EVENT if number is None else min(number, _MOST_SECONDS_PER_EVENT)
            pace = Pace(seconds, pace.cut)
        elif name == "cut":
            pace = Pace(pace.seconds, cut=True)
        elif (failure := _failure(name, number, created)) is not None:
            raise failure
    return pace


def _failure(name: str, number: float | None, created: int) -> PortalError | None:
    if name == "429:until":
        # Counts down to a moment, from which on the same request is answered.
        left = int(number or 0) - created
        return RateLimited(left) if left > 0 else None
    seconds = _RETRY_SECONDS if number is None else min(max(1, int(number)), _MOST_RETRY_SECONDS)
    if name == "429":
        return RateLimited(seconds)
    if name == "503":
        return ServiceUnavailable(retry_after=seconds) if number is not None else ServiceUnavailable()
    if name == "provider-429":
        said = "The simulated provider said: Rate limit reached."
        return ProviderFailed(said, status=429, code="provider_rate_limited", retry_after=seconds)
    return _spending_limit_reached(created) if name == "402" else _FAILURES[name]()


def _authentication_required() -> PortalError:
    return _refusal("authentication_required", f'Bearer realm="{parts().key_format.prefix}"')


def _insufficient_scope() -> PortalError:
    required = Scope.CHAT_WRITE.value
    challenge = f'Bearer realm="{parts().key_format.prefix}", error="insufficient_scope", scope="{required}"'
    return _refusal("insufficient_scope", challenge, required=required, granted=[])


def _refusal(code: str, challenge: str, **details: object) -> PortalError:
    """Return what the gate would answer."""
    reason = REASONS[code]
    return PortalError(
        reason.message.format(**details),
        code=code,
        status=reason.status,
        type=reason.type,
        details=details,
        headers={"WWW-Authenticate": challenge},
    )


def _spending_limit_reached(created: int) -> SpendingLimitReached:
    """A month's limit of which nothing is left."""
    month = spending_counters.period_start("month", datetime.fromtimestamp(created, UTC))
    limit = spending_counters.Limit("key", "", "month", month, _LIMIT_NANO_USD)
    details = spending_counters.Counted(limit, spent=_LIMIT_NANO_USD, held=0).details()
    return SpendingLimitReached(spending.sentence(details), details=details)


def _rejected_key() -> ProviderFailed:
    said = "The simulated provider did not accept this workspace's provider key."
    return ProviderFailed(said, code="provider_rejected_key", headers=_NO_RETRY)


def _out_of_credit() -> ProviderFailed:
    said = "The simulated provider said: The account has no credit."
    return ProviderFailed(said, status=402, code="provider_out_of_credit", headers=_NO_RETRY)


def _unreachable(reason: str = "it did not answer in time") -> ProviderFailed:
    return ProviderFailed(
        f"The simulated provider could not be reached: {reason}.",
        status=503,
        code="provider_unreachable",
        retry_after=_UNREACHABLE_RETRY_SECONDS,
    )


def _pause(seconds: float) -> float:
    if seconds > 0:
        stopping.pause(seconds)
    return seconds


_FAILURES: dict[str, Callable[[], PortalError]] = {
    "401": _authentication_required,
    "403": _insufficient_scope,
    "provider-401": _rejected_key,
    "provider-402": _out_of_credit,
    "provider-500": lambda: ProviderFailed("The simulated provider answered with status 500."),
    "provider-timeout": _unreachable,
}
