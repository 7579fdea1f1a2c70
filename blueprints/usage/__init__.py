"""Usage and limits: what the workspace's keys did, and what they may spend."""

from flask import Blueprint

bp = Blueprint("usage", __name__)

from blueprints.usage import limits  # noqa: E402, F401 - the files register their routes on bp
