"""Forms about API keys."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from wtforms import HiddenField, RadioField, SelectField, SelectMultipleField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs
from wtforms.validators import DataRequired, ValidationError
from wtforms.widgets import DateInput, TimeInput

from blueprints.forms import PortalForm, stripped
from blueprints.template_tools import day
from models import ApiKey
from models.base import now
from services.errors import InvalidInput
from services.keys import NAME_LENGTH
from services.permissions import PRESETS, PUBLISHABLE_SCOPES, Scope

ONE_BY_ONE = "one_by_one"
ON_A_DATE = "on_a_date"
NEVER = "never"
DAYS_OFFERED = (90, 60, 30, 7)

KIND_HINTS = {
    "secret": "For servers. Reads and writes within its scopes. Never put it in a web page or app.",
    "publishable": "For browsers. Read-only, no billing.",
}
ENVIRONMENT_HINTS = {
    "live": "Calls your providers and costs what they charge.",
    "test": "Same rules and errors, answers from a simulator. No provider, no cost.",
}


class KeyForm(PortalForm):
    """A new key. Choices that do not apply are ignored: scopes under a preset, a date beside another expiry."""

    name = StringField(
        "Name",
        [DataRequired("Enter a name for the key")],
        filters=[stripped],
        render_kw={"maxlength": NAME_LENGTH, "autocomplete": "off"},
    )
    kind = RadioField(
        "Type",
        choices=[SelectChoice("secret", "Secret"), SelectChoice("publishable", "Publishable")],
        default="secret",
        validate_choice=False,
    )
    environment = RadioField(
        "Environment",
        choices=[SelectChoice("live", "Live"), SelectChoice("test", "Test")],
        default="live",
        validate_choice=False,
    )
    preset = SelectField("Permissions", default=next(iter(PRESETS)), validate_choice=False)
    scopes = SelectMultipleField("Scopes", choices=[SelectChoice(scope) for scope in Scope], validate_choice=False)
    expires = SelectField("Expires", default=str(DAYS_OFFERED[0]))
    date = StringField("Date", filters=[stripped], widget=DateInput())
    time = StringField("Time, UTC", filters=[stripped], widget=TimeInput(), default="00:00")
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preset.choices = _preset_choices()
        self.expires.choices = _expiry_choices()

    def validate_scopes(self, field: SelectMultipleField) -> None:
        if self.preset.data == ONE_BY_ONE and not field.data:
            raise ValidationError("Choose at least one scope")

    def validate_date(self, field: StringField) -> None:
        if self.expires.data == ON_A_DATE:
            chosen = _read(field.data or "", "%Y-%m-%d", "Choose a date, for example 2027-02-18")
            if chosen.date() < now().date():
                raise ValidationError("Choose a date that is not over")

    def validate_time(self, field: StringField) -> None:
        if self.expires.data == ON_A_DATE:
            _read((field.data or "")[:5], "%H:%M", "Choose a time of day, for example 14:00")

    def settings(self) -> dict[str, Any]:
        """Return what ``keys.mint`` takes. Only after the form was found valid."""
        one_by_one = self.preset.data == ONE_BY_ONE
        return {
            "name": self.name.data,
            "kind": self.kind.data,
            "environment": self.environment.data,
            "preset": None if one_by_one else stripped(self.preset.data),
            "scopes": [stripped(scope) for scope in self.scopes.data or []] if one_by_one else None,
            "expires_at": self._expires_at(),
            "one_time_number": stripped(self.one_time_number.data)[:64] or None,
        }

    def take(self, error: InvalidInput) -> None:
        """As every form, but a fault of the scopes stands where the scopes were chosen, and likewise the moment."""
        places = {
            "scopes": "scopes" if self.preset.data == ONE_BY_ONE else "preset",
            "expires_at": "date" if self.expires.data == ON_A_DATE else "expires",
        }
        for name, sentence in error.fields.items():
            self.fault(places.get(name, name), sentence)

    def _expires_at(self) -> datetime | None:
        if self.expires.data == NEVER:
            return None
        if self.expires.data == ON_A_DATE:
            text = f"{self.date.data} {(self.time.data or '')[:5]}"
            return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        return now() + timedelta(days=int(self.expires.data))


class DeleteForm(PortalForm):
    """The last question before a key ends. ``name`` must be typed only when the key is in use."""

    name = StringField(
        "Type the key’s name to confirm",
        filters=[stripped],
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )

    def __init__(self, key: ApiKey, *, name_needed: bool) -> None:
        super().__init__()
        self.key = key
        if not name_needed:
            del self.name

    def validate_name(self, field: StringField) -> None:
        # A page shows several spaces as one, so they are compared as one.
        if (field.data or "").split() != self.key.name.split():
            raise ValidationError(f"Type “{self.key.name}” exactly as it is written")


def _preset_choices() -> list[SelectChoice]:
    """The presets, those for both kinds apart; ``data-`` attributes let the script count and choose."""
    everywhere, secret_only = "Secret and publishable keys", "Secret keys only"
    made = [
        SelectChoice(
            name,
            preset.title,
            {"data-scopes": str(len(preset.scopes))},
            everywhere if PUBLISHABLE_SCOPES.issuperset(preset.scopes) else secret_only,
        )
        for name, preset in PRESETS.items()
    ]
    by_hand = SelectChoice(ONE_BY_ONE, "Choose scopes one by one", optgroup=everywhere)
    return [choice for choice in made if choice.optgroup == secret_only] + [
        *(choice for choice in made if choice.optgroup == everywhere),
        by_hand,
    ]


def _expiry_choices() -> list[SelectChoice]:
    days = [(number, day(now() + timedelta(days=number))) for number in DAYS_OFFERED]
    return [
        *(SelectChoice(str(number), f"In {number} days ({on})", {"data-day": on}) for number, on in days),
        SelectChoice(ON_A_DATE, "On a date I choose"),
        SelectChoice(NEVER, "Never"),
    ]


def _read(text: str, form: str, sentence: str) -> datetime:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        raise ValidationError(sentence) from None
