"""Which notices a person wants by mail. Mail about the security of an account or a leaked key is no choice.

What is switched off is kept, so that a notice of a new kind reaches everybody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from models import User
from models.base import transaction
from services.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Choice:
    """Notices that are switched on and off together: what they tell, who gets them, and the mails that tell it."""

    name: str
    title: str
    who: str
    templates: frozenset[str]


CHOICES = (
    Choice(
        "key_dates",
        "API keys that expire soon, or are due for rotation",
        "To who made the key, else to owners and admins.",
        frozenset({"key_expiring", "key_rotation_due"}),
    ),
    Choice(
        "key_addresses",
        "An API key is used from a new address",
        "To who made the key, else to owners and admins.",
        frozenset({"key_new_address"}),
    ),
    Choice("rate_limit", "The rate limit is reached", "To owners and admins.", frozenset({"rate_limit_reached"})),
    Choice(
        "spending",
        "A spending limit is used up to 80 %, or reached",
        "To owners and admins, and to who made the key.",
        frozenset({"spending_reached"}),
    ),
    Choice(
        "providers",
        "A provider key stops working, or works again",
        "To owners and admins.",
        frozenset({"provider_key_state"}),
    ),
    Choice("webhooks", "A webhook is disabled", "To owners and admins.", frozenset({"webhook_disabled"})),
)


def wants(user: User, template: str) -> bool:
    """Tell whether a mail from this template may be sent to the person."""
    return not any(choice.name in user.muted_notices and template in choice.templates for choice in CHOICES)


def wanted(user: User) -> list[str]:
    """Return the names of the choices that are on."""
    return [choice.name for choice in CHOICES if choice.name not in user.muted_notices]


def choose(user: User, names: Collection[str]) -> None:
    """Switch on the choices with these names, and all others off. Raises InvalidInput for a name that there is not."""
    if not set(names) <= {choice.name for choice in CHOICES}:
        raise InvalidInput({"notices": "Choose from the list"})
    with transaction() as session:
        user.muted_notices = [choice.name for choice in CHOICES if choice.name not in names]
        session.flush()
