"""The workspace's connections to model providers."""

from __future__ import annotations

from flask import Blueprint, render_template

from blueprints.guards import current_workspace, role_required
from blueprints.presenters import provider_views

bp = Blueprint("providers", __name__)


@bp.get("/keys/providers")
@role_required("viewer")
def index() -> str:
    return render_template("providers/index.html", providers=provider_views(current_workspace()))
