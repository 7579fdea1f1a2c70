"""Forms about members and invitations. The services judge what is given."""

from __future__ import annotations

import secrets

from wtforms import EmailField, HiddenField, RadioField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from blueprints.forms import PortalForm, stripped
from services.permissions import Role

ROLE_HINTS = {
    "owner": "Everything, and alone asks for a plan, appoints owners and deletes the workspace.",
    "admin": "All API keys, provider keys, webhooks, spending limits, members but owners, the audit log.",
    "developer": "Creates API keys and manages those they made.",
    "viewer": "Sees pages and usage, changes nothing.",
}


class InviteForm(PortalForm):
    """Whom to invite, and as what."""

    email = EmailField(
        "E-mail address",
        filters=[stripped],
        render_kw={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none", "maxlength": 254},
    )
    role = RadioField("Role", default=Role.DEVELOPER.value, validate_choice=False)
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, offered: list[Role]) -> None:
        super().__init__()
        self.role.choices = [SelectChoice(role.value, role.value.capitalize()) for role in offered]
        self.hints = ROLE_HINTS

    def number(self) -> str | None:
        """The number by which a second sending of the form is known."""
        return stripped(self.one_time_number.data)[:64] or None
