"""The portal's front door."""

from __future__ import annotations

from flask import Blueprint, redirect, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints.guards import public

bp = Blueprint("home", __name__)


@bp.get("/")
@public("sends everybody where they belong")
def index() -> Response:
    return redirect(url_for("overview.show" if current_user.is_authenticated else "account.sign_in"), 303)
