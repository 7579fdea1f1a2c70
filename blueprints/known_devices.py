"""Browsers that signed in to an account before. A stranger who tries passwords cannot keep them out.

The browser keeps a signed list of accounts, as keyed digests. It opens nothing: it only moves the browser's tries out
of the count that everybody else shares.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

from flask import Response, after_this_request, current_app, g, request
from itsdangerous import BadSignature, URLSafeSerializer

from services.accounts import stored_form
from services.parts import parts

_MOST_ACCOUNTS = 5
_LIFETIME_SECONDS = 180 * 24 * 3600


def remember(email: str) -> None:
    """Let this browser be known to the account from now on."""
    name, accounts = _read()
    mark = _mark(email)
    kept = [mark, *(one for one in accounts if one != mark)][:_MOST_ACCOUNTS]
    value = _signer().dumps([name or secrets.token_hex(8), kept])

    @after_this_request
    def _set(response: Response) -> Response:
        response.set_cookie(
            _cookie_name(),
            value,
            max_age=_LIFETIME_SECONDS,
            secure=current_app.config["SESSION_COOKIE_SECURE"],
            httponly=True,
            samesite="Lax",
        )
        return response


def known_to(email: str) -> str | None:
    """Return this browser's name if it signed in to the account before, else None."""
    name, accounts = _read()
    return name if _mark(email) in accounts else None


def _read() -> tuple[str, list[str]]:
    if "known_device" not in g:
        found: Any = ["", []]
        with contextlib.suppress(BadSignature):
            found = _signer().loads(request.cookies.get(_cookie_name(), ""))
        g.known_device = (found[0], found[1])
    name, accounts = g.known_device
    return name, list(accounts)


def _mark(email: str) -> str:
    text = stored_form(email).encode("utf-8", "replace").decode()
    return parts().link_digests.digest(f"known device {text}").hex()[:32]


def _signer() -> URLSafeSerializer:
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt="known device")


def _cookie_name() -> str:
    return "__Host-device" if current_app.config["SESSION_COOKIE_SECURE"] else "device"
