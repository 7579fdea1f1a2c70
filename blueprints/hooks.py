"""What every request gets, page or API: an id, a look at its text, safe headers, and one line in the log."""

from __future__ import annotations

import random
import re
import time
from typing import Any

from flask import Flask, Request, Response, g, request

from blueprints.portal import PortalRequest, current_g, current_portal, current_request
from services import logs, metrics, stopping
from services.errors import InvalidRequest

# No inline script and no inline style anywhere, so no nonce is needed.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?")
_MOST_TO_TAKE_BYTES = 1_000_000
# What machines ask every few seconds.
_SELF_TALK = {"/healthz", "/readyz", "/metrics"}
_TRANSPORT_SECURITY = "max-age=31536000"


def init_app(app: Flask) -> None:
    """Register the hooks. Must come before every extension's, so that the id is there first and the headers last."""
    app.before_request(_begin)
    app.before_request(_refuse_unstorable_text)
    app.after_request(_finish)


def is_api() -> bool:
    """Tell whether this request is answered in the JSON shape of ``/v1``."""
    path = current_request().path
    return path.startswith("/v1/") or path == "/v1" or bool(g.get("api"))


def _begin() -> None:
    known, environ = current_g(), current_request().environ
    # The moment first, so that the rows of usage come in the order of their index.
    known.request_id = f"req_{time.time_ns() // 1_000_000:012x}{random.getrandbits(48):012x}"
    known.started = time.perf_counter()
    host = environ.get("HTTP_HOST", "")
    # RFC 9112, section 3.2: exactly one Host that is one. The server hands on two of them as an empty one.
    if not _HOST.fullmatch(host) and not (host == "" and environ.get("SERVER_PROTOCOL") == "HTTP/1.0"):
        raise InvalidRequest("The request needs exactly one valid Host header.")


def _refuse_unstorable_text() -> None:
    """Refuse NUL characters in addresses and forms: PostgreSQL cannot hold them and nobody can type them."""
    asked = current_request()
    path, query = asked.path, asked.query_string
    found = "\0" in path or b"\0" in query or b"%00" in query or "%00" in path
    if not found and asked.method == "POST" and not is_api():
        found = any("\0" in text for values in asked.form.listvalues() for text in values)
    if found:
        raise InvalidRequest("The request holds a NUL character.")


def _finish(response: Response) -> Response:
    asked, known, api = current_request(), current_g(), is_api()
    _read_to_the_end(asked)
    headers = response.headers
    headers.add("X-Request-Id", known.get("request_id", ""))
    headers.add("X-Content-Type-Options", "nosniff")
    if stopping.has_begun():
        # The next request on this connection had better find another process.
        headers["Connection"] = "close"
    if current_portal().config["SESSION_COOKIE_SECURE"]:
        headers["Strict-Transport-Security"] = _TRANSPORT_SECURITY
    if api:
        headers.add("Cache-Control", "no-store")
    else:
        _add_page_headers(response)
    seconds = time.perf_counter() - known.started if "started" in known else None
    _count(asked, response, api, seconds)
    _write_log_line(asked, response, known, seconds)
    return response


def _read_to_the_end(asked: PortalRequest) -> None:
    """Take what is left of a request that was refused before it was read.

    A server closes the connection when it answers with a part of the request still on the way, and the client then
    may see a broken pipe where our answer should be. A large body is not worth the wait.
    """
    if asked.body is None and 0 < (asked.content_length or 0) <= _MOST_TO_TAKE_BYTES:
        asked.stream.read()


def _add_page_headers(response: Response) -> None:
    headers = response.headers
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=()"
    if not _is_asset(request):
        headers["Cache-Control"] = "no-store"


def _is_asset(asked: Request) -> bool:
    return asked.endpoint == "assets.show"


def _count(asked: Request, response: Response, api: bool, seconds: float | None) -> None:
    rule, status = asked.url_rule.rule if asked.url_rule else "none", response.status_code
    metrics.REQUESTS.add(rule, metrics.CLASSES.get(status // 100, "other"))
    if seconds is not None:
        metrics.REQUEST_SECONDS.observe(seconds, rule if api else "pages")
    if status == 429:
        metrics.LIMITER_REFUSALS.add("v1" if api else "pages")


def _write_log_line(asked: Request, response: Response, known: Any, seconds: float | None) -> None:
    call = known.get("call")
    status, path = response.status_code, asked.path
    quiet = _is_asset(asked) or (path in _SELF_TALK and status < 400)
    logs.write_request(
        {
            "request_id": known.get("request_id"),
            "method": asked.method,
            # Never the query: people put keys into it, though it opens nothing.
            "path": path,
            "status": status,
            "code": known.get("error_code"),
            "duration_ms": None if seconds is None else round(seconds * 1000, 1),
            "address": asked.remote_addr,
            "workspace": call.key.workspace_id if call else None,
            "key": call.key.key_id if call else None,
        },
        quiet=quiet,
    )
