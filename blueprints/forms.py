"""What the forms of the portal's pages have in common."""

from __future__ import annotations

from typing import Any

from flask import request
from flask_wtf import FlaskForm

from services.errors import InvalidInput


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
