"""The operator's console: accounts, requests for a plan, plans, the state of the instance, mail."""

from __future__ import annotations

from flask import Blueprint

bp = Blueprint("operator", __name__, url_prefix="/operator")

from blueprints.operator import accounts, instance, mail, requests  # noqa: E402, F401 - the files register their routes
