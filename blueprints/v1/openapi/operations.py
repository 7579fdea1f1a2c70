"""What each endpoint under ``/v1`` takes and answers. Its path, scope and place parameters are read from the routes."""

from __future__ import annotations

from dataclasses import dataclass

from blueprints.v1 import asked, audit, members, paging, usage
from blueprints.v1.forward_auth import SCOPE_PATTERN
from blueprints.v1.gateway import PASSED_ON
from blueprints.v1.openapi.schemas import TEXT, Schema, one_of, text


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query."""

    name: str
    schema: Schema
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """``name`` is what generated clients call it. ``takes`` names the schema of the body, ``answers`` that of each
    status, None for one without a body."""

    name: str
    tag: str
    summary: str
    answers: dict[int, str | None]
    takes: str | None = None
    query: tuple[Parameter, ...] = ()
    # Whether the header Idempotency-Key is honoured.
    once: bool = False
    # Whether the answer may be a stream of events as well.
    streams: bool = False
    # Headers that are read, and those of an answer, beside those of every call.
    reads: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()


def _limit(usual: int, most: int) -> Parameter:
    schema: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return Parameter("limit", schema, "How many at most")


_CURSOR = Parameter("cursor", TEXT, "The page's next_cursor, for the page behind it")
_PAGE = (_limit(paging.USUAL_LIMIT, paging.MOST), _CURSOR)
_REPORT_PAGE = (_limit(asked.USUAL_LIMIT, asked.MOST), _CURSOR)
_A_MOMENT = "a UTC day such as 2026-11-01, or a moment with its zone"
_PERIOD = (
    Parameter("from", TEXT, f"The beginning: {_A_MOMENT}. Without it: {usage.USUAL_DAYS} days before the end"),
    Parameter("to", TEXT, f"The end, which is not included: {_A_MOMENT}. Without it: the end of today"),
)
_OF_CALLS = (
    Parameter("key", text(usage.LONGEST), "Calls of this key alone, by its id, or playground"),
    Parameter("model", text(usage.LONGEST), "Calls of this model alone"),
    Parameter("provider", text(usage.LONGEST), "Calls of this provider alone"),
)
_ROUTE = ("X-Arka-Provider", "X-Arka-Model", "X-Arka-Route-Reason")
_WHOSE = ("X-Arka-Key-Id", "X-Arka-Key-Name", "X-Arka-Workspace", "X-Arka-Scopes", "X-Arka-Environment")

MODELS, KEYS, GUARD, PROVIDERS = "Models", "Keys", "Guarding your own services", "Providers"
USAGE, WORKSPACE, WEBHOOKS = "Usage and billing", "Workspace", "Webhooks"


def _authorize(name: str) -> Operation:
    scope = Parameter(
        "scope", {**TEXT, "pattern": f"^{SCOPE_PATTERN}$"}, "The scope that is needed; without it: any key"
    )
    summary = "Tell a reverse proxy whether to let a request through, by the key it carries"
    return Operation(name, GUARD, summary, {204: None}, query=(scope,), tells=_WHOSE)


def _as_openai(name: str, summary: str, *, streams: bool = True) -> Operation:
    answers: dict[int, str | None] = {200: "OpenAiAnswer"}
    return Operation(name, MODELS, summary, answers, "OpenAiRequest", streams=streams, reads=PASSED_ON, tells=_ROUTE)


OPERATIONS: dict[str, Operation] = {
    "POST /v1/chat/completions": _as_openai("createChatCompletion", "Answer a chat"),
    "POST /v1/completions": _as_openai("createCompletion", "Complete a text"),
    "POST /v1/responses": _as_openai("createResponse", "Make a response"),
    "POST /v1/embeddings": _as_openai("createEmbedding", "Make embeddings", streams=False),
    "POST /v1/generate": Operation(
        "generate",
        MODELS,
        "Answer a prompt with a text",
        {200: "Generation"},
        "Prompt",
        reads=PASSED_ON,
        tells=_ROUTE,
    ),
    "GET /v1/models": Operation("listModels", MODELS, "List the models that can be used now", {200: "ModelList"}),
    "GET /v1/models/{model_id}": Operation("getModel", MODELS, "Show a model", {200: "Model"}),
    "GET /v1/me": Operation("getMe", KEYS, "Show what this key is and may do", {200: "Me"}),
    "GET /v1/keys": Operation("listKeys", KEYS, "List the keys, the newest first", {200: "KeyPage"}, query=_PAGE),
    "POST /v1/keys": Operation(
        "createKey", KEYS, "Make a key", {201: "MintedKey", 200: "MintedKey"}, "NewKey", once=True
    ),
    "GET /v1/keys/{key_id}": Operation("getKey", KEYS, "Show a key", {200: "Key"}),
    "PATCH /v1/keys/{key_id}": Operation(
        "changeKey", KEYS, "Change what is given of a key", {200: "Key"}, "KeyChanges"
    ),
    "DELETE /v1/keys/{key_id}": Operation("deleteKey", KEYS, "Delete a key", {200: "DeletedKey"}),
    "POST /v1/keys/{key_id}/rotate": Operation(
        "rotateKey", KEYS, "Give a key a new secret", {200: "MintedKey"}, "KeyRotation", once=True
    ),
    "POST /v1/keys/{key_id}/rotation/finish": Operation(
        "finishRotation", KEYS, "End the previous secret now", {200: "Key"}, once=True
    ),
    "POST /v1/keys/{key_id}/disable": Operation("disableKey", KEYS, "Disable a key", {200: "Key"}, once=True),
    "POST /v1/keys/{key_id}/enable": Operation("enableKey", KEYS, "Enable a disabled key", {200: "Key"}, once=True),
    "POST /v1/keys/verify": Operation(
        "verifyKey",
        GUARD,
        "Tell whether a key that was shown to your service is good",
        {200: "KeyAnswer"},
        "KeyQuestion",
    ),
    "GET /v1/auth": _authorize("authorizeByGet"),
    "POST /v1/auth": _authorize("authorizeByPost"),
    "GET /v1/providers": Operation("listProviders", PROVIDERS, "List the provider keys", {200: "ProviderKeyPage"}),
    "GET /v1/providers/{name}": Operation("getProvider", PROVIDERS, "Show a provider key", {200: "ProviderKey"}),
    "PUT /v1/providers/{name}": Operation(
        "putProvider",
        PROVIDERS,
        "Keep a provider key in place of the one before",
        {200: "ProviderKey", 201: "ProviderKey"},
        "NewProviderKey",
    ),
    "DELETE /v1/providers/{name}": Operation(
        "deleteProvider", PROVIDERS, "Forget a provider key", {200: "DeletedProviderKey"}
    ),
    "POST /v1/providers/{name}/test": Operation(
        "testProvider", PROVIDERS, "Ask the provider about its key", {200: "ProviderKey"}
    ),
    "GET /v1/usage": Operation(
        "getUsage",
        USAGE,
        "Add up calls",
        {200: "Usage"},
        query=(
            *_PERIOD,
            *_OF_CALLS,
            Parameter(
                "group_by",
                {**one_of(usage.GROUPS), "default": "day"},
                f"What parts to show; at most {usage.MOST_DAYS} days, {usage.MOST_HOURS // 24} by the hour",
            ),
        ),
    ),
    "GET /v1/usage/calls": Operation(
        "listCalls",
        USAGE,
        "List calls, the latest first",
        {200: "CallPage"},
        query=(*_PERIOD, *_OF_CALLS, *_REPORT_PAGE),
    ),
    "GET /v1/billing": Operation("getBilling", USAGE, "Show the plan and what was spent this month", {200: "Billing"}),
    "GET /v1/members": Operation(
        "listMembers",
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
        "listAudit",
        WORKSPACE,
        "List what was done, the latest first",
        {200: "AuditPage"},
        query=(
            Parameter("actor", text(audit.LONGEST), "What this person or key did, or a kind of actor such as system"),
            Parameter("action", text(audit.LONGEST), "This act, such as key:create, or all of a kind, such as key"),
            Parameter("object", text(audit.LONGEST), "What was done to this object"),
            Parameter("from", TEXT, f"The beginning: {_A_MOMENT}"),
            Parameter("to", TEXT, f"The end: {_A_MOMENT}"),
            *_REPORT_PAGE,
        ),
    ),
    "GET /v1/webhooks": Operation(
        "listWebhooks", WEBHOOKS, "List the endpoints, the newest first", {200: "WebhookPage"}, query=_PAGE
    ),
    "POST /v1/webhooks": Operation(
        "createWebhook",
        WEBHOOKS,
        "Add an endpoint",
        {201: "MintedWebhook", 200: "MintedWebhook"},
        "NewWebhook",
        once=True,
    ),
    "GET /v1/webhooks/{endpoint_id}": Operation("getWebhook", WEBHOOKS, "Show an endpoint", {200: "Webhook"}),
    "PATCH /v1/webhooks/{endpoint_id}": Operation(
        "changeWebhook", WEBHOOKS, "Change what is given of an endpoint", {200: "Webhook"}, "WebhookChanges"
    ),
    "DELETE /v1/webhooks/{endpoint_id}": Operation(
        "deleteWebhook", WEBHOOKS, "Delete an endpoint", {200: "DeletedWebhook"}
    ),
    "POST /v1/webhooks/{endpoint_id}/rotate-secret": Operation(
        "rotateWebhookSecret",
        WEBHOOKS,
        "Give an endpoint a new signing secret",
        {200: "MintedWebhook"},
        "WebhookRotation",
        once=True,
    ),
    "POST /v1/webhooks/{endpoint_id}/test": Operation(
        "testWebhook", WEBHOOKS, "Send a test", {202: "WebhookDelivery", 200: "WebhookDelivery"}, once=True
    ),
    "GET /v1/webhooks/{endpoint_id}/deliveries": Operation(
        "listDeliveries", WEBHOOKS, "List deliveries, the latest first", {200: "WebhookDeliveryPage"}, query=_PAGE
    ),
    "GET /v1/webhooks/{endpoint_id}/deliveries/{delivery_id}": Operation(
        "getDelivery", WEBHOOKS, "Show a delivery", {200: "WebhookDelivery"}
    ),
    "POST /v1/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver": Operation(
        "redeliver", WEBHOOKS, "Send a delivery again", {202: "WebhookDelivery", 200: "WebhookDelivery"}, once=True
    ),
}
