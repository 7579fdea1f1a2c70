"""Forms about provider keys. The key itself is never filled back in."""

from __future__ import annotations

import secrets
from typing import Any

from wtforms import HiddenField, PasswordField, RadioField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from blueprints.forms import PortalForm, stripped
from models import ProviderKey
from services.errors import InvalidInput
from services.gateway.providers import Provider
from services.parts import parts
from services.provider_keys import LABEL_LENGTH
from services.secret import Secret

# Where a customer makes a key.
_KEY_ATTRIBUTES = {"autocomplete": "off", "spellcheck": "false", "data-1p-ignore": "", "data-lpignore": "true"}


class KeyForm(PortalForm):
    """A new key in place of the one before. What it holds is judged by the service."""

    key = PasswordField("Key", render_kw=_KEY_ATTRIBUTES)
    label = StringField(
        "Label (optional)", filters=[stripped], render_kw={"maxlength": LABEL_LENGTH, "autocomplete": "off"}
    )
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, row: ProviderKey | None = None) -> None:
        super().__init__(data={"label": row.label if row else ""})

    def settings(self) -> dict[str, Any]:
        """Return what ``provider_keys.save`` takes."""
        return {
            "key": Secret(self.key.data or ""),
            "label": self.label.data,
            "one_time_number": stripped(self.one_time_number.data)[:64] or None,
        }


class NewKeyForm(KeyForm):
    """A key for a provider that is chosen here."""

    provider = RadioField("Provider", validate_choice=False)

    def __init__(self) -> None:
        super().__init__()
        offered = [provider for provider in parts().providers.values() if provider.needs_key]
        self.provider.choices = [SelectChoice(provider.name, provider.title) for provider in offered]
        self.hints = {provider.name: _where_to_find(provider) for provider in offered}

    def chosen(self) -> str:
        """Return the provider's name. Raises InvalidInput when none was chosen."""
        if not self.provider.data:
            raise InvalidInput({"provider": "Choose a provider"})
        return str(self.provider.data)


class ConfirmForm(PortalForm):
    """An act whose page says all there is to say; only the button is left."""


def _where_to_find(provider: Provider) -> str:
    """No link: a page of ours leads to no other site, and a key is not to be typed into the wrong one."""
    place = provider.keys_url.removeprefix("https://")
    return f"Where do I find it? At {place}." if place else f"Where do I find it? Whoever runs {provider.title} has it."
