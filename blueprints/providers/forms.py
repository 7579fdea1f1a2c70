"""Forms about provider keys. The key itself is never filled back in."""

from __future__ import annotations

import secrets
from typing import Any

from markupsafe import Markup
from wtforms import HiddenField, PasswordField, RadioField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs

from blueprints.forms import PortalForm, stripped
from models import ProviderKey
from services.errors import InvalidInput
from services.parts import parts
from services.provider_keys import LABEL_LENGTH
from services.secret import Secret

# Where a customer makes a key.
KEY_PAGES = {"openai": "https://platform.openai.com/api-keys", "openrouter": "https://openrouter.ai/settings/keys"}
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
        titles = {name: provider.title for name, provider in parts().providers.items()}
        self.provider.choices = [SelectChoice(name, title) for name, title in titles.items()]
        self.hints = {name: _where_to_find(name, title) for name, title in titles.items()}

    def chosen(self) -> str:
        """Return the provider's name. Raises InvalidInput when none was chosen."""
        if not self.provider.data:
            raise InvalidInput({"provider": "Choose a provider"})
        return str(self.provider.data)


class ConfirmForm(PortalForm):
    """An act whose page says all there is to say; only the button is left."""


def _where_to_find(name: str, title: str) -> Markup:
    if name not in KEY_PAGES:
        return Markup("Where do I find it? Whoever runs {} has it.").format(title)
    return Markup(
        '<a href="{}" rel="external noreferrer">Where do I find it?<span class="visually-hidden"> {}</span></a>'
    ).format(KEY_PAGES[name], title)
