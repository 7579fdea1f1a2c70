"""The providers as data. A new OpenAI-compatible provider is a new row, never an ``if`` in the relay.

The first rows are ours; others are declared by the operator (``services/gateway/declared.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """An OpenAI-compatible server. Addresses come from the operator's settings, never from a customer."""

    name: str
    title: str
    base_url: str
    # How a key is checked (services/provider_check.py): as OpenAI's, as OpenRouter's, or by the list of models alone.
    key_check: str = "models"
    # Where a customer finds a key: an address, or words; empty when nobody said.
    keys_url: str = ""
    # Without: every workspace is connected.
    needs_key: bool = True
    # Models are named ``vendor/model`` here; a plain name such as ``gpt-4o`` does not belong to it.
    names_have_vendor: bool = False
    # A stream tells its usage when ``stream_options`` ask for it. Others tell it always, or cannot be asked.
    usage_on_request: bool = True
    # Declared by the operator: its models are ``name/model`` here, and these by their own name too.
    declared: bool = False
    models: frozenset[str] = frozenset()

    def url(self, path: str) -> str:
        return self.base_url + path


def provider_table(
    *, openai_base_url: str, openrouter_base_url: str, declared: Iterable[Provider] = ()
) -> dict[str, Provider]:
    """Return the providers by name, the one to prefer first.

    OpenRouter ends every stream with its usage, unasked (https://openrouter.ai/docs/use-cases/usage-accounting).
    """
    rows = (
        Provider(
            "openai", "OpenAI", openai_base_url, key_check="openai", keys_url="https://platform.openai.com/api-keys"
        ),
        Provider(
            "openrouter",
            "OpenRouter",
            openrouter_base_url,
            key_check="openrouter",
            keys_url="https://openrouter.ai/settings/keys",
            names_have_vendor=True,
            usage_on_request=False,
        ),
        *declared,
    )
    return {row.name: row for row in rows}
