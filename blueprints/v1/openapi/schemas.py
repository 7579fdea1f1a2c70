"""The shapes of what is sent and answered under ``/v1``, as JSON Schema.

An object that we answer holds all its fields always, and may get new ones; one that is sent to us may hold no others,
except where it goes on to a provider. What only the portal can judge, such as the plan's limits, is not told here.
https://spec.openapis.org/oas/v3.1.1.html#schema-object
"""

from __future__ import annotations

from typing import Any

from blueprints.v1.usage import GROUPS
from blueprints.v1.verify import MOST_COST
from services import keys, money, provider_keys, restrictions, rotation, webhooks
from services.events import KINDS
from services.outbound import URL_LENGTH
from services.permissions import PRESETS, Role
from services.usage import MOST_NAMES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
MOMENT: Schema = {"type": "string", "format": "date-time"}
WORDS: Schema = {"type": "array", "items": TEXT}
USD: Schema = {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2,9}$", "description": "US dollars as a decimal text"}
KEY_KINDS, ENVIRONMENTS = ("secret", "publishable"), ("live", "test")


def one_of(words: Any) -> Schema:
    return {"type": "string", "enum": [str(word) for word in words]}


def or_null(schema: Schema) -> Schema:
    """Return a schema that takes null as well."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **more}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def answered(kind: str | None = None, /, **fields: Schema) -> Schema:
    """Return an object that we answer; ``kind`` is what its field ``object`` says."""
    own = {"object": {"type": "string", "const": kind}} if kind else {}
    return {"type": "object", "properties": {**own, **fields}, "required": [*own, *fields]}


def sent(*required: str, **fields: Schema) -> Schema:
    """Return an object that is sent to us."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def page_of(name: str, /, **more: Schema) -> Schema:
    """Return a page of a list; ``next_cursor`` leads to the next one."""
    data = {"type": "array", "items": ref(name)}
    return answered("list", **more, data=data, has_more=FLAG, next_cursor=or_null(TEXT))


def deleted(kind: str, /, **more: Schema) -> Schema:
    return answered(kind, id=TEXT, **more, deleted={"type": "boolean", "const": True})


def text(longest: int, least: int = 0) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": longest}


_NAME = text(keys.NAME_LENGTH, 1)
_ENTRIES: Schema = {**WORDS, "maxItems": restrictions.MOST_ENTRIES}
_RATE: Schema = {"type": "integer", "minimum": 1, "maximum": restrictions.MOST_REQUESTS_PER_MINUTE}
_AMOUNT: Schema = {
    "type": ["string", "number", "null"],
    "minimum": 0,
    "maximum": money.MOST_USD,
    "description": "US dollars with at most nine decimals, such as 12.50; null or an empty text lifts the limit",
}
_SENT_RESTRICTIONS = sent(
    models=or_null(_ENTRIES),
    networks=or_null({**_ENTRIES, "description": "Addresses or networks, such as 203.0.113.0/24"}),
    origins=or_null({**_ENTRIES, "description": "Origins of a publishable key, such as https://shop.example"}),
    requests_per_minute=or_null({**_RATE, "description": "At most what the plan gives"}),
    daily_limit_usd=_AMOUNT,
    monthly_limit_usd=_AMOUNT,
    allow_unknown_price=or_null(FLAG),
)
_KEY_FIELDS: dict[str, Schema] = {
    "id": TEXT,
    "name": TEXT,
    "kind": one_of(KEY_KINDS),
    "environment": one_of(ENVIRONMENTS),
    "scopes": WORDS,
}
_KEY = answered(
    "key",
    **_KEY_FIELDS,
    preset=or_null(TEXT),
    masked=or_null({**TEXT, "description": "null when the key is deleted"}),
    status=one_of(("active", "disabled", "expired", "deleted")),
    created_at=MOMENT,
    created_by=TEXT,
    expires_at=or_null(MOMENT),
    disabled_at=or_null(MOMENT),
    last_used=or_null(answered(at=MOMENT, address=or_null(TEXT), client=or_null(TEXT))),
    restrictions=ref("Restrictions"),
    rotation=or_null(answered(previous_masked=TEXT, previous_ends_at=MOMENT)),
    due_for_rotation=FLAG,
)
_WEBHOOK = answered(
    "webhook",
    id=TEXT,
    url=TEXT,
    description=TEXT,
    events={"type": "array", "items": TEXT, "description": "Empty: all"},
    created_at=MOMENT,
    created_by=TEXT,
    disabled_at=or_null(MOMENT),
    disabled_reason=or_null(TEXT),
    failing_since=or_null(MOMENT),
    failed_deliveries=COUNT,
    last_answer=or_null(TEXT),
    last_delivery_at=or_null(MOMENT),
    previous_secret_ends_at=or_null(MOMENT),
)
_FIGURES: dict[str, Schema] = {
    "requests": COUNT,
    "failed": COUNT,
    "rate_limited": COUNT,
    "input_tokens": COUNT,
    "cached_input_tokens": COUNT,
    "output_tokens": COUNT,
    "cost_usd": or_null(USD),
    "unknown_cost_calls": COUNT,
    "estimated_calls": COUNT,
}
_PERIOD: dict[str, Schema] = {
    "from": MOMENT,
    "to": MOMENT,
    "filter": answered(key=or_null(TEXT), model=or_null(TEXT), provider=or_null(TEXT)),
}
# What a part of the usage is named by, for each way to group the calls.
_USAGE_PARTS: tuple[dict[str, Schema], ...] = (
    {"day": {"type": "string", "format": "date"}},
    {"hour": MOMENT},
    {"key": {**TEXT, "description": f"An id, playground, or … for all beyond {MOST_NAMES}"}, "name": TEXT},
    {"model": or_null(TEXT)},
    {"provider": or_null(TEXT)},
)
_WEBHOOK_EVENTS: Schema = {"type": "array", "items": one_of(KINDS), "description": "Empty: all"}
_OPENAI: Schema = {"type": "object", "description": "As OpenAI's API defines it", "additionalProperties": True}
_URL = {**text(URL_LENGTH, 1), "description": "An address that begins with https://"}
_DESCRIPTION = or_null(text(webhooks.DESCRIPTION_LENGTH))


def _with(schema: Schema, /, **more: Schema) -> Schema:
    return {
        **schema,
        "properties": {**schema["properties"], **more},
        "required": [*schema["required"], *more],
    }


SCHEMAS: dict[str, Schema] = {
    "Error": answered(
        success={"type": "boolean", "const": False},
        error=answered(
            type=TEXT,
            code=TEXT,
            message=TEXT,
            param=or_null(TEXT),
            retry_after=or_null({**WHOLE, "description": "Seconds, as in Retry-After"}),
            details={"type": "object"},
            request_id=or_null(TEXT),
        ),
    ),
    "RateLimit": answered(limit=COUNT, remaining=COUNT, reset={**WHOLE, "description": "Unix seconds"}),
    "Restrictions": answered(
        models=WORDS,
        networks=WORDS,
        origins=WORDS,
        requests_per_minute=or_null(WHOLE),
        daily_limit_usd=or_null(USD),
        monthly_limit_usd=or_null(USD),
        allow_unknown_price=FLAG,
    ),
    "Key": _KEY,
    "MintedKey": _with(_KEY, key=or_null({**TEXT, "description": "The secret, told once; null when told before"})),
    "KeyPage": page_of("Key"),
    "DeletedKey": deleted("key"),
    "NewKey": {
        **sent(
            "name",
            "kind",
            "environment",
            name=_NAME,
            kind=one_of(KEY_KINDS),
            environment=one_of(ENVIRONMENTS),
            scopes=or_null({**WORDS, "minItems": 1}),
            preset=or_null(one_of(PRESETS)),
            expires_at=or_null(MOMENT),
            restrictions=or_null(_SENT_RESTRICTIONS),
        ),
        "description": "Give scopes or a preset, one of the two",
        "oneOf": [
            {"required": ["scopes"], "properties": {"scopes": WORDS, "preset": {"type": "null"}}},
            {"required": ["preset"], "properties": {"preset": TEXT, "scopes": {"type": "null"}}},
        ],
    },
    "KeyChanges": sent(name=_NAME, expires_at=or_null(MOMENT), restrictions=or_null(_SENT_RESTRICTIONS)),
    "KeyRotation": sent(
        "overlap",
        overlap={
            "description": "How long the previous secret goes on to work, or until when",
            "anyOf": [one_of(rotation.OVERLAPS), MOMENT],
        },
    ),
    "Me": answered(
        "key",
        **_KEY_FIELDS,
        expires_at=or_null(MOMENT),
        restrictions=ref("Restrictions"),
        workspace=answered(slug=TEXT, name=TEXT, plan=TEXT),
        ratelimit=ref("RateLimit"),
    ),
    "KeyQuestion": sent(
        "key",
        key={**TEXT, "description": "What your caller showed"},
        scope=or_null(TEXT),
        cost=or_null({**COUNT, "maximum": MOST_COST, "default": 1}),
        address=or_null({**TEXT, "description": "Your caller's IP address"}),
        origin=or_null({**TEXT, "description": "The header Origin that your caller sent"}),
    ),
    "KeyAnswer": answered(
        valid=FLAG,
        code=or_null({**TEXT, "description": "Why it is not valid"}),
        key=or_null(
            answered(
                "key",
                id=TEXT,
                name=TEXT,
                kind=one_of(KEY_KINDS),
                environment=one_of(ENVIRONMENTS),
                expires_at=or_null(MOMENT),
            )
        ),
        scopes=WORDS,
        ratelimit=or_null(ref("RateLimit")),
    ),
    "ProviderKey": answered(
        "provider_key",
        id=TEXT,
        provider=TEXT,
        title=TEXT,
        label=TEXT,
        state=TEXT,
        state_message=or_null(TEXT),
        state_seen_at=or_null(MOMENT),
        checked_at=or_null(MOMENT),
        credit_nano_usd=or_null({**WHOLE, "description": "Billionths of a dollar"}),
        created_at=MOMENT,
        updated_at=MOMENT,
        created_by=TEXT,
    ),
    "ProviderKeyPage": page_of("ProviderKey"),
    "DeletedProviderKey": deleted("provider_key", provider=TEXT),
    "NewProviderKey": sent(
        "key",
        key=text(provider_keys.LONGEST_KEY, 1),
        label=or_null(text(provider_keys.LABEL_LENGTH)),
        verify=or_null({**FLAG, "default": True, "description": "Whether the provider is asked about it first"}),
    ),
    "Usage": answered(
        "usage",
        **_PERIOD,
        group_by=one_of(GROUPS),
        total=answered(**_FIGURES),
        data={"type": "array", "items": ref("UsagePart")},
    ),
    "UsagePart": {"anyOf": [answered(**names, **_FIGURES) for names in _USAGE_PARTS]},
    "Call": answered(
        request_id=TEXT,
        started_at=MOMENT,
        key=TEXT,
        environment=TEXT,
        endpoint=TEXT,
        requested_model=or_null(TEXT),
        model=or_null(TEXT),
        provider=or_null(TEXT),
        route_reason=or_null(TEXT),
        status=WHOLE,
        code=or_null(TEXT),
        streamed=FLAG,
        duration_ms=or_null(COUNT),
        input_tokens=or_null(COUNT),
        cached_input_tokens=or_null(COUNT),
        output_tokens=or_null(COUNT),
        estimated=FLAG,
        cost_usd=or_null(USD),
        price_version=or_null(TEXT),
        address=or_null(TEXT),
        client=or_null(TEXT),
    ),
    "CallPage": page_of("Call", **_PERIOD),
    "Billing": answered(
        "billing",
        plan=answered(name=TEXT, title=TEXT, price=TEXT, api_access=FLAG),
        limits=answered(requests_per_minute=COUNT),
        month=answered(**{"from": MOMENT}, cost_usd=USD, unknown_cost_calls=COUNT, estimated_calls=COUNT),
        spending_limits={
            "type": "array",
            "items": answered(
                title=TEXT,
                owner=TEXT,
                period=one_of(("day", "month")),
                limit_usd=USD,
                spent_usd=USD,
                held_usd=USD,
                resets_at=MOMENT,
            ),
        },
    ),
    "Member": answered(
        "member",
        id=TEXT,
        status={"type": "string", "const": "active"},
        role=one_of(Role),
        email=or_null(TEXT),
        name=or_null(TEXT),
        joined_at=MOMENT,
        last_seen_at=or_null(MOMENT),
    ),
    "Invitation": answered(
        "invitation",
        id=TEXT,
        status={"type": "string", "const": "invited"},
        role=one_of(Role),
        email=or_null(TEXT),
        invited_by=or_null(TEXT),
        invited_at=MOMENT,
        expires_at=MOMENT,
    ),
    "MemberOrInvitation": {"oneOf": [ref("Member"), ref("Invitation")]},
    "MemberPage": page_of("MemberOrInvitation"),
    "AuditEntry": answered(
        "audit_entry",
        number=COUNT,
        at=MOMENT,
        action=TEXT,
        actor=answered(kind=TEXT, id=or_null(TEXT), name=or_null(TEXT), address=or_null(TEXT), client=or_null(TEXT)),
        target=or_null(answered(id=TEXT, name=or_null(TEXT))),
        details=or_null({"type": "object"}),
    ),
    "AuditPage": page_of("AuditEntry"),
    "Webhook": _WEBHOOK,
    "MintedWebhook": _with(
        _WEBHOOK, secret=or_null({**TEXT, "description": "The signing secret, told once; null when told before"})
    ),
    "WebhookPage": page_of("Webhook"),
    "DeletedWebhook": deleted("webhook"),
    "NewWebhook": sent("url", url=_URL, description=_DESCRIPTION, events=or_null(_WEBHOOK_EVENTS)),
    "WebhookChanges": sent(
        url=_URL,
        description=_DESCRIPTION,
        events=or_null(_WEBHOOK_EVENTS),
        disabled=or_null(FLAG),
    ),
    "WebhookRotation": sent("overlap", overlap=one_of(webhooks.OVERLAPS)),
    "WebhookDelivery": answered(
        "webhook_delivery",
        id=TEXT,
        message_id=TEXT,
        type=TEXT,
        status=one_of(("waiting", "delivered", "failed")),
        created_at=MOMENT,
        delivered_at=or_null(MOMENT),
        next_attempt_at=or_null(MOMENT),
        attempts={
            "type": "array",
            "items": answered(
                at=MOMENT, duration_ms=COUNT, status=or_null(WHOLE), error=or_null(TEXT), answer=or_null(TEXT)
            ),
        },
    ),
    "WebhookDeliveryPage": page_of("WebhookDelivery"),
    "Model": answered("model", id=TEXT, created=WHOLE, owned_by=TEXT, provider=TEXT),
    "ModelList": answered("list", data={"type": "array", "items": ref("Model")}),
    "OpenAiRequest": {
        **_OPENAI,
        "description": "As OpenAI's API defines it; nothing is answered in the background",
        "properties": {"model": {"type": "string", "minLength": 1}, "stream": or_null(FLAG)},
        "required": ["model"],
    },
    "OpenAiAnswer": _OPENAI,
    "Prompt": {
        "type": "object",
        "description": "Other fields but messages and stream go into the chat as they are",
        "properties": {
            "prompt": {"type": "string", "pattern": r"\S"},
            "model": {"type": "string", "minLength": 1, "default": "arkabrain"},
        },
        "required": ["prompt"],
        "additionalProperties": True,
    },
    "Generation": answered(
        success={"type": "boolean", "const": True},
        text=TEXT,
        model=or_null(TEXT),
        usage=answered(
            prompt_tokens=or_null(COUNT), completion_tokens=or_null(COUNT), total_tokens=COUNT, estimated=FLAG
        ),
        id=or_null(TEXT),
    ),
}
