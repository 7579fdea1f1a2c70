"""Requests, tokens and cost, and the limits they count against."""

from flask import Blueprint

bp = Blueprint("usage", __name__)

from blueprints.usage import limits, routes  # noqa: E402, F401 - the files register their routes on bp
