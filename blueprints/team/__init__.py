"""Team & roles: who belongs to the workspace, what each may do, who is invited."""

from flask import Blueprint

bp = Blueprint("team", __name__, url_prefix="/team")

from blueprints.team import invitations, routes  # noqa: E402, F401 - the files register their routes on bp
