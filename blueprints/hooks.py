"""What every request gets, page or API: an id, a look at its text, safe headers, and one line in the log."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from flask import Flask, Response, current_app, g, request

from services import metrics, stopping
from services.errors import InvalidRequest

_log = structlog.get_logger("request")

# No inline script and no inline style anywhere, so no nonce is needed.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?")
_MOST_TO_TAKE_BYTES = 1_000_000
_CLASSES = {number: f"{number}xx" for number in range(1, 6)}
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
    return request.path.startswith("/v1/") or request.path == "/v1" or bool(g.get("api"))


def _begin() -> None:
    g.request_id = "req_" + secrets.token_hex(12)
    g.started = time.perf_counter()
    host = request.environ.get("HTTP_HOST", "")
    # RFC 9112, section 3.2: exactly one Host that is one. The server hands on two of them as an empty one.
    if not _HOST.fullmatch(host) and not (host == "" and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0"):
        raise InvalidRequest("The request needs exactly one valid Host header.")


def _refuse_unstorable_text() -> None:
    """Refuse NUL characters in addresses and forms: PostgreSQL cannot hold them and nobody can type them."""
    found = "\0" in request.path or "\0" in request.query_string.decode("latin-1") or "%00" in request.full_path
    if not found and not is_api() and request.method == "POST":
        found = any("\0" in text for values in request.form.listvalues() for text in values)
    if found:
        raise InvalidRequest("The request holds a NUL character.")


def _finish(response: Response) -> Response:
    _read_to_the_end()
    headers = response.headers
    headers["X-Request-Id"] = g.get("request_id", "")
    headers["X-Content-Type-Options"] = "nosniff"
    if stopping.has_begun():
        # The next request on this connection had better find another process.
        headers["Connection"] = "close"
    if current_app.config["SESSION_COOKIE_SECURE"]:
        headers["Strict-Transport-Security"] = _TRANSPORT_SECURITY
    if is_api():
        headers["Cache-Control"] = "no-store"
    else:
        _add_page_headers(response)
    _count(response)
    _write_log_line(response)
    return response


def _read_to_the_end() -> None:
    """Take what is left of a request that was refused before it was read.

    A server closes the connection when it answers with a part of the request still on the way, and the client then
    may see a broken pipe where our answer should be. A large body is not worth the wait.
    """
    if 0 < (request.content_length or 0) <= _MOST_TO_TAKE_BYTES:
        request.stream.read()


def _add_page_headers(response: Response) -> None:
    headers = response.headers
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=()"
    if not _is_asset():
        headers["Cache-Control"] = "no-store"


def _is_asset() -> bool:
    return request.endpoint == "assets.show"


def _count(response: Response) -> None:
    rule = request.url_rule.rule if request.url_rule else "none"
    metrics.REQUESTS.add(rule, _CLASSES.get(response.status_code // 100, "other"))
    if "started" in g:
        metrics.REQUEST_SECONDS.observe(time.perf_counter() - g.started, rule if is_api() else "pages")
    if response.status_code == 429:
        metrics.LIMITER_REFUSALS.add("v1" if is_api() else "pages")


def _write_log_line(response: Response) -> None:
    call = g.get("call")
    write = _log.debug if _is_asset() or (request.path in _SELF_TALK and response.status_code < 400) else _log.info
    write(
        "request",
        request_id=g.get("request_id"),
        method=request.method,
        # Never the query: people put keys into it, though it opens nothing.
        path=request.path,
        status=response.status_code,
        code=g.get("error_code"),
        duration_ms=round((time.perf_counter() - g.started) * 1000, 1) if "started" in g else None,
        address=request.remote_addr,
        workspace=call.key.workspace_id if call else None,
        key=call.key.key_id if call else None,
    )
