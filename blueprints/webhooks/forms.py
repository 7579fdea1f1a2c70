"""Forms about webhook endpoints. What they hold is judged by the service."""

from __future__ import annotations

import secrets
from typing import Any

from wtforms import HiddenField, RadioField, SelectMultipleField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from blueprints.forms import PortalForm, stripped
from models import WebhookEndpoint
from services import events
from services.outbound import URL_LENGTH
from services.webhooks import DESCRIPTION_LENGTH

OVERLAP_HINTS = {
    "24h": "For a day every delivery carries two signatures, one with each secret.",
    "now": "Use this if it has leaked. Deliveries are signed with the new secret alone.",
}


class EndpointForm(PortalForm):
    """A new endpoint, or what may be changed of one."""

    url = StringField(
        "Address",
        filters=[stripped],
        render_kw={"maxlength": URL_LENGTH, "autocomplete": "off", "spellcheck": "false", "inputmode": "url"},
    )
    description = StringField(
        "Description (optional)",
        filters=[stripped],
        render_kw={"maxlength": DESCRIPTION_LENGTH, "autocomplete": "off"},
    )
    events = SelectMultipleField("Events", choices=[SelectChoice(kind) for kind in events.KINDS], validate_choice=False)
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, endpoint: WebhookEndpoint | None = None) -> None:
        super().__init__(
            data={"url": endpoint.url, "description": endpoint.description, "events": endpoint.events}
            if endpoint
            else None
        )

    def settings(self) -> dict[str, Any]:
        """Return what ``webhooks.create`` and ``webhooks.change`` take."""
        return {"url": self.url.data, "description": self.description.data, "kinds": self.events.data or []}

    def number(self) -> str | None:
        return stripped(self.one_time_number.data)[:64] or None


class OverlapForm(PortalForm):
    """A new signing secret: what becomes of the present one."""

    overlap = RadioField(
        "What happens to the present secret?",
        choices=[SelectChoice("24h", "It signs for 24 more hours"), SelectChoice("now", "Stop it now")],
        default="24h",
        validate_choice=False,
    )
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))
    hints = OVERLAP_HINTS

    def number(self) -> str | None:
        return stripped(self.one_time_number.data)[:64] or None


class ConfirmForm(PortalForm):
    """An act whose page says all there is to say; only the button is left."""


def event_groups() -> dict[str, list[tuple[str, str]]]:
    """Return the kinds of events with what they tell, by what they are about."""
    titles = {
        "key": "API keys",
        "plan": "Plan and limits",
        "spending_limit": "Plan and limits",
        "spending": "Plan and limits",
        "rate_limit": "Plan and limits",
        "provider_key": "Provider keys",
        "member": "Members",
    }
    groups: dict[str, list[tuple[str, str]]] = {}
    for kind, meaning in events.KINDS.items():
        groups.setdefault(titles[kind.partition(".")[0]], []).append((kind, meaning))
    return groups
