"""Holds every answer of ``/v1`` that the client of a test is given against the description of the API.

What was taken is looked at as well: of a request that was carried out, the description must hold query and body.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from blueprints.v1.idempotency import REPLAYED
from blueprints.v1.openapi.document import ALWAYS, described
from blueprints.v1.openapi.operations import OPERATIONS, Operation
from blueprints.v1.openapi.schemas import SCHEMAS, Schema

_JSON, _EVENTS = "application/json", "text/event-stream"
_OWN = ("X-Arka-", REPLAYED)


def check(app: Flask, response: TestResponse) -> None:
    """Raise AssertionError for an answer that the description does not hold."""
    method, path = response.request.method, response.request.path
    if method in ("HEAD", "OPTIONS") or not path.startswith("/v1/") or path == "/v1/openapi.json":
        return
    place = f"{method} {path}: {response.status_code}"
    if response.status_code >= 400:
        _check_json(place, response, "Error")
        return
    operation = _operation(app, method, path)
    assert response.status_code in operation.answers, f"{place} is not described"
    _check_taken(place, response, operation)
    _check_headers(place, response, operation)
    name = operation.answers[response.status_code]
    if name is None:
        assert not response.get_data(), f"{place} has a body"
    elif operation.streams and _sent(response).get("stream"):
        assert response.mimetype == _EVENTS, f"{place} is no stream"
    else:
        _check_json(place, response, name)


def _check_taken(place: str, response: TestResponse, operation: Operation) -> None:
    known = {one.name: one.schema for one in operation.query}
    for name, value in response.request.args.items():
        assert name in known, f"{place}: the parameter {name} was taken"
        _check_value(f"{place}: {name}", int(value) if known[name]["type"] == "integer" else value, known[name])
    if operation.takes is not None:
        _check_value(f"{place}: its body", _sent(response), _whole(SCHEMAS, operation.takes))


def _sent(response: TestResponse) -> Any:
    """Return the body of the request."""
    source = response.request.environ["wsgi.input"]
    source.seek(0)
    return json.loads(source.read())


def _check_headers(place: str, response: TestResponse, operation: Operation) -> None:
    names = {name for name, _ in response.headers}
    told = {name for name in names if name.startswith(_OWN)}
    assert told <= {*operation.tells, *([REPLAYED] if operation.once else [])}, f"{place} has other headers: {told}"
    assert set(ALWAYS) <= names, f"{place} lacks headers"


def _check_json(place: str, response: TestResponse, name: str) -> None:
    assert response.mimetype == _JSON, f"{place} is {response.mimetype}"
    _check_value(place, response.get_json(), _whole(_closed_schemas(), name))


def _check_value(place: str, value: Any, schema: Schema) -> None:
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    faults = [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(value)]
    assert faults == [], place


def _operation(app: Flask, method: str, path: str) -> Operation:
    try:
        rule, _ = app.url_map.bind("").match(path, method, return_rule=True)
    except HTTPException:
        raise AssertionError(f"{method} {path} is no route, and was answered") from None
    return OPERATIONS[f"{method} {described(rule)}"]


def _whole(schemas: dict[str, Schema], name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}


@functools.cache
def _closed_schemas() -> dict[str, Schema]:
    """Return the schemas with objects that have the named fields and no others: none may be forgotten."""
    closed: dict[str, Schema] = _closed(SCHEMAS)
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "required" in schema:
        closed.setdefault("additionalProperties", False)
    return closed
