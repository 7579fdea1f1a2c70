"""What the forms of the portal's pages have in common."""

from __future__ import annotations

from typing import Any

from flask import request
from flask_wtf import FlaskForm
from wtforms import SelectField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from models import ApiKey, Membership
from services import time_zones
from services.errors import InvalidInput

END_NOW = "end"


class PortalForm(FlaskForm):  # type: ignore[misc]
    """A form that can take the faults that a service found, beside those it finds itself."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        """Reads the fields of a form and nothing else: no files and no JSON, whose values are not all text."""

        def wrap_formdata(self, form: FlaskForm, formdata: Any) -> Any:
            return (request.form or None) if request.method == "POST" else None

    def take(self, error: InvalidInput) -> None:
        """Put each fault at its field; one that has no field here is put above the form."""
        for name, sentence in error.fields.items():
            self.fault(name, sentence)

    def fault(self, name: str, sentence: str) -> None:
        """Add one fault to a field by the field's name."""
        if name in self._fields:
            self[name].errors = [*self[name].errors, sentence]
        else:
            self.form_errors.append(sentence)


def stripped(text: str | None) -> str:
    """Return typed or pasted text without the spaces around it."""
    return (text or "").strip()


def zone_choices(present: str) -> list[SelectChoice]:
    """Return the time zones to choose from; what is set stays a choice, also when this machine does not know it."""
    known = time_zones.names()
    return [SelectChoice(name, name.replace("_", " ")) for name in (known if present in known else (present, *known))]


class KeysForm(PortalForm):
    """What becomes of the keys of somebody who goes. Without keys there is nothing to choose."""

    keys = SelectField("Their API keys", validate_choice=False)

    def __init__(self, owned: list[ApiKey], heirs: list[Membership], usual: str | None) -> None:
        present = {heir.user_id for heir in heirs}
        super().__init__(data={"keys": usual if usual in present else END_NOW})
        self.keys.choices = choices_for_keys(heirs)
        if not owned:
            del self.keys

    def heir_id(self) -> str | None:
        """Return who takes over the keys, None when they end."""
        return heir_of(self.keys.data if "keys" in self else END_NOW)


def choices_for_keys(heirs: list[Membership]) -> list[SelectChoice]:
    """Return what can become of the keys of somebody who goes."""
    return [
        *(SelectChoice(heir.user_id, f"Hand over to {heir.user.display_name}") for heir in heirs),
        SelectChoice(END_NOW, "End them now"),
    ]


def heir_of(chosen: object) -> str | None:
    """Return who was chosen to take over keys, None when they end."""
    return None if chosen == END_NOW else str(chosen)
