"""ARKAbrain: the best connected model for a task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidRequest

_ALIASES = ("arkabrain", "auto")


@dataclass(frozen=True, slots=True)
class Choice:
    """The model to call, as a caller would name it, the provider to call it at, and why: one short ASCII sentence."""

    model: str
    provider: str
    task: str
    reason: str


def is_alias(model: str) -> bool:
    """Tell whether a model's name asks for ARKAbrain; capitals make no difference."""
    return model.lower() in _ALIASES


def known_providers() -> frozenset[str]:
    """Return the providers that the rules name: what counts as connected for a test key."""
    return frozenset({"openai", "openrouter"})


def choose(request: dict[str, Any], endpoint: str, connected: Collection[str]) -> Choice:
    """Choose among the models of the connected providers. Raises InvalidRequest when there is none."""
    for provider, model in (("openai", "gpt-4o"), ("openrouter", "openai/gpt-4o")):
        if provider in connected:
            return Choice(model, provider, "general", f"general: {model} is the first connected model for general")
    raise InvalidRequest(
        "No provider key is connected. Add a key of OpenAI or OpenRouter in Settings, API Keys.",
        code="provider_not_connected",
        param="model",
    )
