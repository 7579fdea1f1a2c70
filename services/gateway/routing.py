"""Which provider serves a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.errors import InvalidRequest
from services.gateway.providers import Provider


@dataclass(frozen=True, slots=True)
class Route:
    """A provider, and the model's name there."""

    provider: Provider
    model: str


def routes(model: str, connected: Iterable[str], providers: Mapping[str, Provider]) -> list[Route]:
    """Return where the model can be had, the first choice first.

    ``gpt-4o`` is OpenAI's; ``anthropic/claude-3.5-sonnet`` OpenRouter's; ``openai/gpt-4o`` is served by OpenAI itself
    or by OpenRouter, whichever is connected. Raises InvalidRequest that names the key to add.
    """
    possible = [route for provider in providers.values() if (route := _route(model, provider)) is not None]
    connected = set(connected)
    found = [route for route in possible if route.provider.name in connected]
    if not found:
        titles = " or ".join(route.provider.title for route in possible)
        raise InvalidRequest(
            f"No provider key is connected for model '{model}'. Add a key of {titles} in Settings, API Keys.",
            code="provider_not_connected",
            param="model",
            details={"providers": [route.provider.name for route in possible]},
        )
    return found


def _route(model: str, provider: Provider) -> Route | None:
    vendor, slash, name = model.partition("/")
    if provider.names_have_vendor:
        return Route(provider, model) if slash else None
    if not slash:
        return Route(provider, model)
    return Route(provider, name) if vendor == provider.name else None
