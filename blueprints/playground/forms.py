"""What is asked at the playground."""

from __future__ import annotations

import secrets

from wtforms import HiddenField, StringField, TextAreaField
from wtforms.validators import DataRequired, Length

from blueprints.forms import PortalForm, stripped

MOST_CHARACTERS = 20_000
_LONGEST_MODEL = 200
_too_long = f"Use at most {MOST_CHARACTERS:,} characters"


class AskForm(PortalForm):
    """A model, what it is to be, and what is said to it."""

    model = StringField(
        "Model",
        [DataRequired("Enter a model"), Length(max=_LONGEST_MODEL, message="This is longer than the name of a model")],
        filters=[stripped],
        render_kw={"list": "models", "autocomplete": "off", "spellcheck": "false"},
    )
    system = TextAreaField(
        "System (optional)", [Length(max=MOST_CHARACTERS, message=_too_long)], filters=[stripped], render_kw={"rows": 2}
    )
    message = TextAreaField(
        "Message",
        [DataRequired("Write a message"), Length(max=MOST_CHARACTERS, message=_too_long)],
        filters=[stripped],
        render_kw={"rows": 5},
    )
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def number(self, user_id: str) -> str | None:
        """The number by which a second sending of this person's form is known; the form gets another."""
        number = (self.one_time_number.data or "")[:60] or None
        self.one_time_number.data = secrets.token_urlsafe(16)
        return number and f"playground:{user_id}:{number}"
