"""One try to deliver: the message, signed as Standard Webhooks says, and what came of it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import datetime

import orjson
from standardwebhooks.webhooks import Webhook

from models import WebhookEndpoint, WebhookEvent
from models.base import now
from services import events, logs, webhooks
from services.outbound import Answer, Refused
from services.parts import parts
from services.secret import Secret
from services.vault import CannotDecrypt

# All of a try: looking up the name, connecting, sending, and reading the answer.
SECONDS = 15.0
_ANSWER_LENGTH = 500
_ERROR_LENGTH = 200
_MOST_CLEANED = 8000
# The first that fits is told.
_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, f"No answer within {SECONDS:.0f} seconds."),
    (ssl.SSLError, "No encrypted connection could be made."),
    (socket.gaierror, "The name could not be resolved."),
    (ConnectionRefusedError, "The connection was refused."),
    (http.client.HTTPException, "The answer was not HTTP."),
    (ValueError, "The address is not one that is called."),
)


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent where. ``secrets`` sign it; without any it cannot be sent."""

    endpoint_id: str
    url: str
    message_id: str
    body: bytes
    secrets: list[Secret]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a try: a status and the beginning of the answer, or what went wrong before there was one."""

    at: datetime
    duration_ms: int
    status: int | None = None
    answer: str | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def words(self) -> str:
        """The status, or what went wrong."""
        return self.error or str(self.status)


def message_of(endpoint: WebhookEndpoint, event: WebhookEvent) -> Message:
    """Return the message for one event; its id is the same at every try and to every endpoint."""
    try:
        secrets = webhooks.signing_secrets(endpoint)
    except CannotDecrypt:
        secrets = []
    return Message(endpoint.id, endpoint.url, event.id, orjson.dumps(events.payload(event)), secrets)


def send(message: Message) -> Outcome:
    """Send a message. Never raises for what the other side, its name or its network does."""
    at, began = now(), time.monotonic()
    answer, error = None, None
    if not message.secrets:
        error = "The signing secret cannot be decrypted. Rotate it."
    else:
        try:
            answer = parts().outbound.post(message.url, message.body, _headers(message, at), seconds=SECONDS)
        except (Refused, OSError, http.client.HTTPException, ValueError) as failure:
            error = _told(failure)
    duration = math.ceil((time.monotonic() - began) * 1000)
    if answer is None:
        return Outcome(at, duration, error=(error or "")[:_ERROR_LENGTH])
    return Outcome(at, duration, status=answer.status, answer=_excerpt(answer, message.secrets))


def _headers(message: Message, at: datetime) -> dict[str, str]:
    body = message.body.decode()
    signatures = [Webhook(secret.reveal()).sign(message.message_id, at, body) for secret in message.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Standard-Webhooks/1.0",
        "webhook-id": message.message_id,
        "webhook-timestamp": str(math.floor(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _told(failure: Exception) -> str:
    """Return what went wrong in our words: those of a library may quote what was sent."""
    if isinstance(failure, Refused):
        return f"{failure}."
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"The certificate is not valid: {failure.verify_message}."
    return next((words for kind, words in _FAILURES if isinstance(failure, kind)), "The connection failed.")


def _excerpt(answer: Answer, secrets: list[Secret]) -> str | None:
    """Return the beginning of an answer for the log, printable and without secrets."""
    text = answer.body.decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret.reveal(), "[hidden]").replace(secret.reveal().removeprefix("whsec_"), "[hidden]")
    cleaned = str(logs.clean("".join(letter if letter.isprintable() else " " for letter in text[:_MOST_CLEANED])))
    return " ".join(cleaned.split())[:_ANSWER_LENGTH] or None
