"""Why was this refused? A request id leads to the checks of that call, with the one that failed."""

from __future__ import annotations

import re

from flask import render_template, request

from blueprints.guards import current_workspace, role_required
from blueprints.keys.common import Answer, bp
from services import key_history
from services.errors import NotFound

# A key that a service asked about has the call in its own history under the question's id and this end.
_REQUEST_ID = re.compile(r"req_[0-9A-Za-z]{1,40}(_v)?")


@bp.get("/refusals")
@role_required("viewer")
def refusals() -> Answer:
    request_id = request.args.get("request_id", "").strip()
    explanation, problem = None, ""
    if "request_id" in request.args:
        # Only what looks like one of our ids is looked up and shown again; a key pasted here never is.
        request_id = request_id if _REQUEST_ID.fullmatch(request_id) else ""
        try:
            explanation = key_history.explain(current_workspace(), request_id)
        except NotFound:
            problem = "No call of this workspace has this request id. It begins with req_ and stands in every answer."
    page = render_template("keys/refusals.html", explanation=explanation, problem=problem, request_id=request_id)
    return page, 404 if problem else 200
