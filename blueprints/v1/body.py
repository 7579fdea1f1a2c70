"""The body of a request, whole or not at all."""

from __future__ import annotations

import time

from werkzeug.exceptions import RequestEntityTooLarge

from blueprints.portal import PortalRequest, current_portal, current_request
from blueprints.v1.auth import confirm
from services.errors import InvalidRequest
from services.gate import LATE_SECONDS
from services.json_input import read_object


def read_body() -> bytes:
    """Return the body.

    The server ends a body that was cut off as if it were complete, and a chunked one is read no further than the limit,
    so both are checked here. Raises InvalidRequest, werkzeug's RequestEntityTooLarge, and what ``confirm`` does.
    """
    asked = current_request()
    if asked.body is None:
        asked_at = time.monotonic()
        asked.body = _taken_from(asked)
        if time.monotonic() - asked_at > LATE_SECONDS:
            confirm()
    return asked.body


def _taken_from(asked: PortalRequest) -> bytes:
    most = current_portal().config["MAX_CONTENT_LENGTH"]
    announced = asked.content_length
    if announced is None:
        body = asked.get_data()
        if len(body) >= most:
            raise RequestEntityTooLarge
        return body
    if announced > most:
        raise RequestEntityTooLarge
    # Without werkzeug's stream around the server's: one length is all there is to look after.
    taken: bytes = asked.environ["wsgi.input"].read(announced)
    if len(taken) != announced:
        raise InvalidRequest("The body is shorter than its Content-Length says.", code="invalid_json")
    return taken


def requested_model() -> str | None:
    """Return the model that a JSON body names, None when it names none.

    A body that cannot be read names none: the view refuses it, and the call is counted and kept like any other.
    """
    try:
        model = read_object(read_body()).get("model")
    except (InvalidRequest, RequestEntityTooLarge):
        return None
    return model if isinstance(model, str) else None
