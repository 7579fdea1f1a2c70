"""What each endpoint under ``/v1`` takes and answers. Its path, scope and place parameters are read from the routes."""

from __future__ import annotations

from dataclasses import dataclass

from blueprints.v1 import asked, members, paging
from blueprints.v1.openapi.schemas import TEXT, Schema, one_of
from blueprints.v1.usage import GROUPS, USUAL_DAYS


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query."""

    name: str
    schema: Schema
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """``takes`` names the schema of the body; ``answers`` that of each status, None for one without a body."""

    tag: str
    summary: str
    answers: dict[int, str | None]
    takes: str | None = None
    query: tuple[Parameter, ...] = ()
    # Whether the header Idempotency-Key is honoured.
    once: bool = False
    # Whether the answer may be a stream of events as well.
    streams: bool = False


def _limit(usual: int, most: int) -> Parameter:
    schema: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return Parameter("limit", schema, "How many at most")


def _text(name: str, longest: int, description: str) -> Parameter:
    return Parameter(name, {**TEXT, "maxLength": longest}, description)


_CURSOR = Parameter("cursor", TEXT, "The page's next_cursor, for the page behind it")
_PAGE = (_limit(paging.USUAL_LIMIT, paging.MOST), _CURSOR)
_REPORT_PAGE = (_limit(asked.USUAL_LIMIT, asked.MOST), _CURSOR)
_A_MOMENT = "a UTC day such as 2026-11-01, or a moment with its zone"
_PERIOD = (
    Parameter("from", TEXT, f"The beginning: {_A_MOMENT}. Without it: {USUAL_DAYS} days before the end"),
    Parameter("to", TEXT, f"The end, which is not included: {_A_MOMENT}. Without it: the end of today"),
)
_OF_CALLS = (
    _text("key", 200, "Calls of this key alone, by its id, or playground"),
    _text("model", 200, "Calls of this model alone"),
    _text("provider", 200, "Calls of this provider alone"),
)

MODELS, KEYS, GUARD, PROVIDERS = "Models", "Keys", "Guarding your own services", "Providers"
USAGE, WORKSPACE, WEBHOOKS = "Usage and billing", "Workspace", "Webhooks"

OPERATIONS: dict[str, Operation] = {
    "POST /v1/chat/completions": Operation(
        MODELS, "Answer a chat", {200: "OpenAiAnswer"}, "OpenAiRequest", streams=True
    ),
    "POST /v1/completions": Operation(MODELS, "Complete a text", {200: "OpenAiAnswer"}, "OpenAiRequest", streams=True),
    "POST /v1/responses": Operation(MODELS, "Make a response", {200: "OpenAiAnswer"}, "OpenAiRequest", streams=True),
    "POST /v1/embeddings": Operation(MODELS, "Make embeddings", {200: "OpenAiAnswer"}, "OpenAiRequest"),
    "POST /v1/generate": Operation(MODELS, "Answer a prompt with a text", {200: "Generation"}, "Prompt"),
    "GET /v1/models": Operation(MODELS, "List the models that can be used now", {200: "ModelList"}),
    "GET /v1/models/{model_id}": Operation(MODELS, "Show a model", {200: "Model"}),
    "GET /v1/me": Operation(KEYS, "Show what this key is and may do", {200: "Me"}),
    "GET /v1/keys": Operation(KEYS, "List the keys, the newest first", {200: "KeyPage"}, query=_PAGE),
    "POST /v1/keys": Operation(KEYS, "Make a key", {201: "MintedKey", 200: "MintedKey"}, "NewKey", once=True),
    "GET /v1/keys/{key_id}": Operation(KEYS, "Show a key", {200: "Key"}),
    "PATCH /v1/keys/{key_id}": Operation(KEYS, "Change what is given of a key", {200: "Key"}, "KeyChanges"),
    "DELETE /v1/keys/{key_id}": Operation(KEYS, "Delete a key", {200: "DeletedKey"}),
    "POST /v1/keys/{key_id}/rotate": Operation(
        KEYS, "Give a key a new secret", {200: "MintedKey"}, "KeyRotation", once=True
    ),
    "POST /v1/keys/{key_id}/rotation/finish": Operation(KEYS, "End the previous secret now", {200: "Key"}, once=True),
    "POST /v1/keys/{key_id}/disable": Operation(KEYS, "Disable a key", {200: "Key"}, once=True),
    "POST /v1/keys/{key_id}/enable": Operation(KEYS, "Enable a disabled key", {200: "Key"}, once=True),
    "POST /v1/keys/verify": Operation(
        GUARD, "Tell whether a key that was shown to your service is good", {200: "KeyAnswer"}, "KeyQuestion"
    ),
    **{
        f"{method} /v1/auth": Operation(
            GUARD,
            "Tell a reverse proxy whether to let a request through, by the key it carries",
            {204: None},
            query=(Parameter("scope", {**TEXT, "maxLength": 60}, "The scope that is needed; without it: any key"),),
        )
        for method in ("GET", "POST")
    },
    "GET /v1/providers": Operation(PROVIDERS, "List the provider keys", {200: "ProviderKeyPage"}),
    "GET /v1/providers/{name}": Operation(PROVIDERS, "Show a provider key", {200: "ProviderKey"}),
    "PUT /v1/providers/{name}": Operation(
        PROVIDERS,
        "Keep a provider key in place of the one before",
        {200: "ProviderKey", 201: "ProviderKey"},
        "NewProviderKey",
    ),
    "DELETE /v1/providers/{name}": Operation(PROVIDERS, "Forget a provider key", {200: "DeletedProviderKey"}),
    "POST /v1/providers/{name}/test": Operation(PROVIDERS, "Ask the provider about its key", {200: "ProviderKey"}),
    "GET /v1/usage": Operation(
        USAGE,
        "Add up calls",
        {200: "Usage"},
        query=(*_PERIOD, *_OF_CALLS, Parameter("group_by", {**one_of(GROUPS), "default": "day"}, "What parts to show")),
    ),
    "GET /v1/usage/calls": Operation(
        USAGE, "List calls, the latest first", {200: "CallPage"}, query=(*_PERIOD, *_OF_CALLS, *_REPORT_PAGE)
    ),
    "GET /v1/billing": Operation(USAGE, "Show the plan and what was spent this month", {200: "Billing"}),
    "GET /v1/members": Operation(
        WORKSPACE,
        "List the members, or who is invited",
        {200: "MemberPage"},
        query=(
            Parameter("status", {**one_of(("active", "invited")), "default": "active"}, "Which of the two"),
            _limit(members.USUAL_MEMBERS, members.MOST_MEMBERS),
            _CURSOR,
        ),
    ),
    "GET /v1/audit": Operation(
        WORKSPACE,
        "List what was done, the latest first",
        {200: "AuditPage"},
        query=(
            _text("actor", 100, "What this person or key did"),
            _text("action", 100, "This act alone, such as key:create"),
            _text("object", 100, "What was done to this object"),
            *(
                Parameter(one.name, TEXT, f"The {side}: {_A_MOMENT}")
                for one, side in zip(_PERIOD, ("beginning", "end"), strict=True)
            ),
            *_REPORT_PAGE,
        ),
    ),
    "GET /v1/webhooks": Operation(WEBHOOKS, "List the endpoints, the newest first", {200: "WebhookPage"}, query=_PAGE),
    "POST /v1/webhooks": Operation(
        WEBHOOKS, "Add an endpoint", {201: "MintedWebhook", 200: "MintedWebhook"}, "NewWebhook", once=True
    ),
    "GET /v1/webhooks/{endpoint_id}": Operation(WEBHOOKS, "Show an endpoint", {200: "Webhook"}),
    "PATCH /v1/webhooks/{endpoint_id}": Operation(
        WEBHOOKS, "Change what is given of an endpoint", {200: "Webhook"}, "WebhookChanges"
    ),
    "DELETE /v1/webhooks/{endpoint_id}": Operation(WEBHOOKS, "Delete an endpoint", {200: "DeletedWebhook"}),
    "POST /v1/webhooks/{endpoint_id}/rotate-secret": Operation(
        WEBHOOKS, "Give an endpoint a new signing secret", {200: "MintedWebhook"}, "WebhookRotation", once=True
    ),
    "POST /v1/webhooks/{endpoint_id}/test": Operation(
        WEBHOOKS, "Send a test", {202: "WebhookDelivery", 200: "WebhookDelivery"}, once=True
    ),
    "GET /v1/webhooks/{endpoint_id}/deliveries": Operation(
        WEBHOOKS, "List deliveries, the latest first", {200: "WebhookDeliveryPage"}, query=_PAGE
    ),
    "GET /v1/webhooks/{endpoint_id}/deliveries/{delivery_id}": Operation(
        WEBHOOKS, "Show a delivery", {200: "WebhookDelivery"}
    ),
    "POST /v1/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver": Operation(
        WEBHOOKS, "Send a delivery again", {202: "WebhookDelivery", 200: "WebhookDelivery"}, once=True
    ),
}
