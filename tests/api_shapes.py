"""Holds every answer of ``/v1`` that a test is given against the description of the API."""

from __future__ import annotations

import functools
from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from blueprints.v1.openapi.document import described
from blueprints.v1.openapi.operations import OPERATIONS, Operation
from blueprints.v1.openapi.schemas import SCHEMAS

_JSON, _EVENTS = "application/json", "text/event-stream"


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
    name = operation.answers[response.status_code]
    if name is None:
        assert not response.get_data(), f"{place} has a body"
    elif response.mimetype == _EVENTS:
        assert operation.streams, f"{place} is a stream"
    else:
        _check_json(place, response, name)


def _check_json(place: str, response: TestResponse, name: str) -> None:
    assert response.mimetype == _JSON, f"{place} is {response.mimetype}"
    faults = [f"{fault.json_path}: {fault.message}" for fault in _validator(name).iter_errors(response.get_json())]
    assert faults == [], f"{place} is no {name}"


def _operation(app: Flask, method: str, path: str) -> Operation:
    try:
        rule, _ = app.url_map.bind("").match(path, method, return_rule=True)
    except HTTPException:
        raise AssertionError(f"{method} {path} is no route, and was answered") from None
    return OPERATIONS[f"{method} {described(rule)}"]


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _closed(SCHEMAS)}}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _closed(schema: Any) -> Any:
    """Return a schema in which an object has the named fields and no others: none may be forgotten."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "required" in schema:
        closed.setdefault("additionalProperties", False)
    return closed
