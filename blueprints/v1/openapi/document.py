"""The description of ``/v1`` as OpenAPI 3.1, from the routes, the operations and the schemas.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from blueprints.v1.auth import ASKED_SCOPE, MARK, NO_SCOPE
from blueprints.v1.idempotency import HEADER, LONGEST, REPLAYED
from blueprints.v1.openapi.operations import OPERATIONS, Operation, Parameter
from blueprints.v1.openapi.schemas import FLAG, SCHEMAS, TEXT, WHOLE, Schema, ref, text
from services.version import VERSION

_ROOT = "/v1"
_PLACE = re.compile(r"<(?:\w+:)?(\w+)>")
_JSON, _EVENTS = "application/json", "text/event-stream"
_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: Authorization: Bearer arka_sk_..."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key"},
}
_HEADERS: dict[str, tuple[Schema, str]] = {
    "X-Request-Id": (TEXT, "Finds the call in the log and in usage"),
    "X-RateLimit-Limit": (WHOLE, "Requests in any 60 seconds"),
    "X-RateLimit-Remaining": (WHOLE, "How many are left"),
    "X-RateLimit-Reset": (WHOLE, "Unix second at which one more becomes possible"),
    "RateLimit-Policy": (TEXT, "Every limit that counts the call"),
    "RateLimit": (TEXT, "The tighter one"),
    "Retry-After": (WHOLE, "Seconds until the request may be sent again"),
    REPLAYED: (FLAG, "true when the same request was carried out before"),
    "WWW-Authenticate": (TEXT, "What is needed, as in RFC 6750; with 401 and 403"),
    "X-Arka-Provider": (TEXT, "The provider that the call went to"),
    "X-Arka-Model": (TEXT, "The model that the call went to"),
    "X-Arka-Route-Reason": (TEXT, "Why, when ARKAbrain has chosen"),
    "X-Arka-Key-Id": (TEXT, "The key"),
    "X-Arka-Key-Name": (TEXT, "Its name, percent-encoded"),
    "X-Arka-Workspace": (TEXT, "Its workspace"),
    "X-Arka-Scopes": (TEXT, "Its scopes, with spaces between them"),
    "X-Arka-Environment": (TEXT, "live or test"),
}
_MEANINGS = {200: "Done", 201: "Made", 202: "Queued", 204: "Yes; headers tell whose key it is"}
ALWAYS = (
    "X-Request-Id",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
)


def described(rule: Rule) -> str:
    """Return the path of a route as OpenAPI writes it: ``/v1/keys/{key_id}``."""
    return _PLACE.sub(r"{\1}", rule.rule)


def document(app: Flask) -> dict[str, Any]:
    """Return the whole description. Raises KeyError for a route that nobody has described."""
    paths: dict[str, dict[str, Any]] = {}
    for method, rule in _routes(app):
        path = described(rule)
        scope = getattr(app.view_functions[rule.endpoint], MARK)
        told = _operation(path, OPERATIONS[f"{method} {path}"], scope)
        paths.setdefault(path.removeprefix(_ROOT), {})[method.lower()] = told
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ARKA portal",
            "version": VERSION,
            "description": "OpenAI's endpoints, and what the portal's pages do, for programs.",
        },
        "servers": [{"url": _ROOT}],
        "security": [{name: []} for name in _SCHEMES],
        "tags": [{"name": name} for name in dict.fromkeys(one.tag for one in OPERATIONS.values())],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": _SCHEMES,
            "headers": {
                name: {"schema": schema, "description": meaning} for name, (schema, meaning) in _HEADERS.items()
            },
        },
    }


def _routes(app: Flask) -> Iterator[tuple[str, Rule]]:
    """Yield method and route of everything under ``/v1`` that asks for a key."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.rule.startswith(f"{_ROOT}/") and hasattr(app.view_functions[rule.endpoint], MARK):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield method, rule


def _operation(path: str, one: Operation, scope: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "description": _need(scope),
        "tags": [one.tag],
        "parameters": _parameters(path, one),
        "responses": {str(status): _answer(one, status) for status in sorted(one.answers)},
    }
    told["responses"] |= {"4XX": _refusal("The request is refused"), "5XX": _refusal("The portal or a provider failed")}
    if one.takes is not None:
        told["requestBody"] = {"required": True, "content": {_JSON: {"schema": ref(one.takes)}}}
    return told


def _need(scope: str) -> str:
    if scope == NO_SCOPE:
        return "Any key may ask."
    return f"Needs {scope}." if scope == ASKED_SCOPE else f"Needs the scope `{scope}`."


def _parameters(path: str, one: Operation) -> list[dict[str, Any]]:
    places = [
        {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    once = {"name": HEADER, "in": "header", "schema": text(LONGEST, 1)}
    once["description"] = "A text of your own; the same request is not carried out twice"
    passed_on = [
        {"name": name, "in": "header", "schema": TEXT, "description": "Goes on to the provider"} for name in one.reads
    ]
    return [*places, *map(_in_query, one.query), *passed_on, *([once] if one.once else [])]


def _in_query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "schema": parameter.schema,
        "description": parameter.description,
    }


def _answer(one: Operation, status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": _meaning(one, status)}
    told["headers"] = _headers([*ALWAYS, *one.tells, *([REPLAYED] if one.once else [])])
    name = one.answers[status]
    if name is not None:
        told["content"] = {_JSON: {"schema": ref(name)}}
        if one.streams:
            told["content"][_EVENTS] = {"schema": {**TEXT, "description": "Server-sent events, when stream is true"}}
    return told


def _meaning(one: Operation, status: int) -> str:
    if one.once and status != max(one.answers):
        return "The same request was carried out before: what it made, as it is now"
    return _MEANINGS[status]


def _refusal(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _headers([*ALWAYS, "Retry-After", "WWW-Authenticate"]),
        "content": {_JSON: {"schema": ref("Error")}},
    }


def _headers(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
