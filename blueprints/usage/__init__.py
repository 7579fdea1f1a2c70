"""Requests, tokens and cost, and the limits they count against."""

from flask import Blueprint

bp = Blueprint("usage", __name__)

from blueprints.usage import routes  # noqa: E402 - the file registers its routes on bp

__all__ = ["bp", "routes"]
