"""The page of what guards a person's account."""

from __future__ import annotations

from flask import render_template

from blueprints.account.routes import bp
from blueprints.guards import signed_in


@bp.get("/account/security")
@signed_in
def security() -> str:
    return render_template("account/security.html")
