"""The providers as data. A new OpenAI-compatible provider is a new row, never an ``if`` in the relay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """An OpenAI-compatible server. Addresses come from the operator's settings, never from a customer."""

    name: str
    title: str
    base_url: str
    # What a saved key is tried with: an authenticated GET that costs nothing.
    check_path: str
    # Models are named ``vendor/model`` here; a plain name such as ``gpt-4o`` does not belong to it.
    names_have_vendor: bool

    def url(self, path: str) -> str:
        return self.base_url + path


def provider_table(*, openai_base_url: str, openrouter_base_url: str) -> dict[str, Provider]:
    """Return the providers by name, the one to prefer first.

    The check of OpenRouter is https://openrouter.ai/docs/api-reference/api-keys/get-current-api-key; OpenAI has no
    such call, so its list of models serves.
    """
    rows = (
        Provider("openai", "OpenAI", openai_base_url, "/models", names_have_vendor=False),
        Provider("openrouter", "OpenRouter", openrouter_base_url, "/key", names_have_vendor=True),
    )
    return {row.name: row for row in rows}
