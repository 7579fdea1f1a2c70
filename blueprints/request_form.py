"""Contact sales: the form with which an owner asks for a plan, at the gate and at the Plan page."""

from __future__ import annotations

import secrets
from typing import Any

from wtforms import HiddenField, SelectField, StringField, TextAreaField

from blueprints.forms import PortalForm, stripped
from blueprints.guards import current_actor, current_person, current_workspace
from extensions import limiter
from services import access_requests
from services.errors import AlreadyDone, InvalidInput

_NUMBER_LENGTH = 64

# Of one address; what a workspace may ask in a day the service says.
limited = limiter.limit("20/minute", methods=["POST"])


class RequestForm(PortalForm):
    """What for, how much, and where to answer."""

    use = TextAreaField(
        "What will you use the API for?",
        filters=[stripped],
        render_kw={"rows": 3, "maxlength": access_requests.WORDS_LENGTH},
    )
    volume = SelectField("Requests per minute at your busiest", validate_choice=False)
    reply_to = StringField(
        "Reply to", filters=[stripped], render_kw={"type": "email", "autocomplete": "email", "maxlength": 254}
    )
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(data={"reply_to": current_person().email}, **kwargs)
        self.volume.choices = list(access_requests.volumes().items())

    def send(self) -> bool:
        """Send the request; tell whether there is one now. What is wrong with it stands at its field."""
        number = (self.one_time_number.data or "")[:_NUMBER_LENGTH]
        try:
            access_requests.ask(
                current_workspace(),
                use=self.use.data or "",
                volume=self.volume.data or "",
                reply_to=self.reply_to.data or "",
                actor=current_actor(),
                one_time_number=number or None,
            )
        except InvalidInput as error:
            self.take(error)
            return False
        except AlreadyDone:
            # A second click: the page shows what the first one made.
            return True
        return True
