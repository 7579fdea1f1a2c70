"""What the pages show of endpoints and deliveries, worked out from the records."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from models.base import now
from services import events, webhook_deliveries, webhooks


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint with how it stands in words."""

    endpoint: WebhookEndpoint

    @property
    def name(self) -> str:
        return self.endpoint.description or self.host

    @property
    def host(self) -> str:
        return webhooks.host_of(self.endpoint)

    @property
    def state(self) -> str:
        if self.endpoint.disabled_at is not None:
            return "disabled"
        return "failing" if self.endpoint.failing_since is not None else "active"

    @property
    def since_style(self) -> str:
        """How to tell since when it fails: the time of day is enough today."""
        since = self.endpoint.failing_since
        return "clock" if since is not None and since.date() == now().date() else "soon"

    @property
    def last_answer(self) -> str:
        """What came back last, without the full stop of a sentence."""
        return (self.endpoint.last_answer or "").rstrip(".")

    @property
    def has_two_secrets(self) -> bool:
        return any(row.ends_at is not None and row.ends_at > now() for row in self.endpoint.secrets)


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A delivery with its tries, the latest first."""

    delivery: WebhookDelivery
    attempts: list[WebhookAttempt]

    @property
    def state(self) -> str:
        return webhook_deliveries.state_of(self.delivery)

    @property
    def latest(self) -> WebhookAttempt | None:
        return self.attempts[0] if self.attempts else None

    @property
    def payload(self) -> str:
        """What is sent, laid out to be read."""
        return orjson.dumps(events.payload(self.delivery.event), option=orjson.OPT_INDENT_2).decode()


def delivery_views(deliveries: list[WebhookDelivery]) -> list[DeliveryView]:
    attempts = webhook_deliveries.attempts_of(deliveries)
    return [DeliveryView(delivery, attempts[delivery.id]) for delivery in deliveries]
