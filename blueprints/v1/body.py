"""The body of a request, whole or not at all."""

from __future__ import annotations

from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

from services.errors import InvalidRequest
from services.json_input import read_object


def read_body() -> bytes:
    """Return the body.

    The server ends a body that was cut off as if it were complete, and a chunked one is read no further than the limit,
    so both are checked here. Raises InvalidRequest and werkzeug's RequestEntityTooLarge.
    """
    asked = request._get_current_object()  # type: ignore[attr-defined]
    body: bytes = asked.get_data()
    announced = asked.content_length
    if announced is not None and announced != len(body):
        raise InvalidRequest("The body is shorter than its Content-Length says.", code="invalid_json")
    if announced is None and len(body) >= current_app.config["MAX_CONTENT_LENGTH"]:
        raise RequestEntityTooLarge
    return body


def requested_model() -> str | None:
    """Return the model that a JSON body names, None when it names none.

    A body that cannot be read names none: the view refuses it, and the call is counted and kept like any other.
    """
    try:
        model = read_object(read_body()).get("model")
    except (InvalidRequest, RequestEntityTooLarge):
        return None
    return model if isinstance(model, str) else None
