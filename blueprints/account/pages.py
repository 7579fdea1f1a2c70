"""What the pages of accounts have in common."""

from __future__ import annotations

from typing import Any

from flask import render_template, request, url_for
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from blueprints.forms import PortalForm
from blueprints.guards import client_address, client_name, local_path
from services.actor import Actor
from services.parts import parts

Answer = str | Response | tuple[str, int]


def page_of(template: str, form: PortalForm, **more: Any) -> tuple[str, int]:
    """Return a page with a form on it; 422 when something is wrong with what was sent."""
    next_path = local_path(request.args.get("next"))
    return render_template(template, form=form, next=next_path, **more), 422 if form.errors else 200


def onwards() -> Response:
    """Go where somebody wanted to before they had to sign in, else to the overview."""
    return redirect(local_path(request.args.get("next")) or url_for("overview.show"), 303)


def stranger() -> Actor:
    """Who asks without being signed in; mail tells from where that was."""
    return Actor(kind="user", name="somebody", address=client_address(), client=client_name())


def mail_goes_to_files() -> bool:
    """Tell whether mail only lies in a folder, so that a page can say where to look."""
    return parts().post.transport.keeps_letters
