"""How often sign-in, sign-up and reset may be tried: by address and by account, so that nobody locks others out.

Each attempt counts, not only a failed one: of many at once all would pass before the first has failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from flask import request
from flask_login import current_user

from blueprints.guards import current_session
from blueprints.known_devices import known_to
from extensions import limiter
from services.accounts import stored_form
from services.restrictions import network_of

View = Callable[..., Any]


def account_named() -> str:
    """The limiter's key for the account somebody tries: its address hashed, so that the store holds none."""
    email = stored_form(request.form.get("email", ""))
    return "account:" + hashlib.sha256(email.encode("utf-8", "replace")).hexdigest()


def account_from_here() -> str:
    """The same for one browser that the account knows, or else for one network."""
    return f"{account_named()}:{known_to(request.form.get('email', '')) or network()}"


def network() -> str:
    """Return where a request comes from."""
    return network_of(request.remote_addr or "unknown")


def _person() -> str:
    return str(current_session().user_id) if current_user.is_authenticated else network()


def _is_known() -> bool:
    return known_to(request.form.get("email", "")) is not None


limited_by_address = limiter.limit("60/minute", key_func=network, methods=["POST"])
# Each sends a message to somebody.
limited_mail = limiter.limit("20/minute;200/hour", key_func=network, methods=["POST"])

# A stolen session must not be a place to try passwords.
limited_person = limiter.limit("10/minute", key_func=lambda: f"person:{_person()}", methods=["POST"])

_by_account_and_place = limiter.limit("10/minute", key_func=account_from_here, methods=["POST"])
# All strangers together. Browsers that signed in before are not among them.
_by_account = limiter.limit("30/minute;100/hour", key_func=account_named, methods=["POST"], exempt_when=_is_known)


def limited_by_account(view: View) -> View:
    """Limit how often one account may be tried, from one place and from all that it does not know."""
    return _by_account(_by_account_and_place(view))
