"""The one place where an exception becomes a response: a page, or the JSON shape of ``/v1``."""

from __future__ import annotations

import math
import time

import orjson
import structlog
from flask import Flask, Response, current_app, g, render_template
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from sqlalchemy import exc as database_errors
from sqlalchemy.orm.exc import ObjectDeletedError
from werkzeug.exceptions import HTTPException

from blueprints.hooks import is_api
from blueprints.portal import PortalResponse
from extensions import db, limiter
from services.errors import (
    DatabaseAway,
    InvalidRequest,
    LimiterAway,
    NotFound,
    PermissionRefused,
    PortalError,
    RateLimited,
)
from services.logs import each_text, hide_keys
from services.rate_limits import StoreUnavailable

_log = structlog.get_logger("error")

_DATABASE_AWAY = (
    database_errors.OperationalError,
    database_errors.InterfaceError,
    # A PostgreSQL that has become read-only after a failover.
    database_errors.InternalError,
    database_errors.TimeoutError,
)

# What PostgreSQL and SQLite call a row that points at none.
_FOREIGN_KEY = {"23503", "SQLITE_CONSTRAINT_FOREIGNKEY"}

# A program asked for no page.
_NO_SUCH_OBJECT = "There is no such object, or it is not yours."

# What the framework's own refusals are called under /v1.
_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
}


def init_app(app: Flask) -> None:
    """Register the translation of every exception."""
    app.register_error_handler(Exception, _answer)


def _answer(error: Exception) -> Response:
    refusal = as_portal_error(error)
    # The limits tell once when their storage goes away and comes back, not for each request.
    if refusal.status >= 500 and not isinstance(refusal, LimiterAway):
        _log.error("failed", request_id=g.get("request_id"), code=refusal.code, exc_info=error)
    elif _is_about_what_is_gone(error):
        # Or a mistake of ours, which must not stay unseen.
        _log.warning("row gone", request_id=g.get("request_id"), exc_info=error)
    if type(refusal) is PortalError and refusal.code == "internal_error" and current_app.testing:
        raise error
    # Whatever was begun is not to be kept, and the page below reads afresh.
    db.session.remove()
    g.error_code = refusal.code
    response = _json(refusal) if is_api() else _page_or_text(refusal)
    response.headers.extend(refusal.headers)
    if is_api() and refusal.status == 403:
        # RFC 6750, section 3.1: more is needed than this key has. The gate has said so itself, if it was the gate.
        challenge = f'Bearer realm="{current_app.config["KEY_PREFIX"]}", error="insufficient_scope"'
        response.headers.setdefault("WWW-Authenticate", challenge)
    return response


def as_portal_error(error: Exception) -> PortalError:
    """Return the member of the error family that tells the caller about ``error``."""
    if isinstance(error, PortalError):
        return error
    if isinstance(error, RateLimitExceeded):
        return _too_many_attempts()
    if isinstance(error, CSRFError):
        return InvalidRequest("This form has expired. Go back, load the page again and send it once more.")
    if isinstance(error, HTTPException):
        return _from_framework(error)
    if isinstance(error, _DATABASE_AWAY):
        return DatabaseAway()
    if isinstance(error, StoreUnavailable):
        return LimiterAway()
    if _is_about_what_is_gone(error):
        return NotFound()
    return PortalError()


def _is_about_what_is_gone(error: Exception) -> bool:
    """Tell whether somebody deleted, at that very moment, the person or thing that a request was about."""
    if isinstance(error, database_errors.IntegrityError):
        return bool(
            _FOREIGN_KEY & {getattr(error.orig, "sqlstate", None), getattr(error.orig, "sqlite_errorname", None)}
        )
    return isinstance(error, ObjectDeletedError)


def _from_framework(error: HTTPException) -> PortalError:
    status = error.code or 500
    if status == 404:
        return NotFound(None if not is_api() else "There is no such endpoint.")
    if status >= 500:
        return PortalError(status=status)
    kind = PermissionRefused if status in (401, 403) else InvalidRequest
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Location")}
    return kind(error.description, status=status, code=_CODES.get(status, "invalid_request"), headers=headers)


def _too_many_attempts() -> RateLimited:
    current = limiter.current_limit
    try:
        # Asks the storage again, which may be away by now.
        reset_at = current.reset_at if current else None
    except StoreUnavailable:
        reset_at = None
    if current is None or reset_at is None:
        return RateLimited(60)
    # Flask-Limiter rounds up as well.
    return RateLimited(max(1, min(current.limit.get_expiry(), math.ceil(reset_at - time.time()))))


def _json(error: PortalError) -> Response:
    body = {
        "success": False,
        "error": {
            "type": error.type,
            "code": error.code,
            "message": _NO_SUCH_OBJECT if error.message == NotFound.message else error.message,
            "param": error.param,
            "retry_after": error.retry_after,
            "details": error.details,
            "request_id": g.get("request_id"),
        },
    }
    # A key sent in the wrong place is not told back, as the name of a model or of a field.
    told = each_text(body, hide_keys)
    return PortalResponse([orjson.dumps(told, default=str)], error.status, content_type="application/json")


def _page_or_text(error: PortalError) -> Response:
    try:
        return _page(error)
    except Exception:
        # The page needs what has just failed, or an address that the request did not tell.
        _log.exception("error page failed", request_id=g.get("request_id"))
        text = f"{error.message}\nRequest: {g.get('request_id')}\n"
        return Response(text, error.status, content_type="text/plain; charset=utf-8")


def _page(error: PortalError) -> Response:
    page = render_template("errors/page.html", error=error, request_id=g.get("request_id"))
    return Response(page, error.status, content_type="text/html; charset=utf-8")
