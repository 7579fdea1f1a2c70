"""Which provider serves a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from services.errors import InvalidRequest
from services.gateway.providers import Provider


class Route(NamedTuple):
    """A provider, and the model's name there."""

    provider: Provider
    model: str


def usable(keys_of: Iterable[str], providers: Mapping[str, Provider]) -> set[str]:
    """Return the names of the providers that can be asked: those with a key, and those that need none."""
    return {*keys_of, *(name for name, provider in providers.items() if not provider.needs_key)}


def routes(model: str, connected: Collection[str], providers: Mapping[str, Provider]) -> list[Route]:
    """Return where the model can be had, the first choice first.

    ``gpt-4o`` is OpenAI's; ``anthropic/claude-3.5-sonnet`` OpenRouter's; ``openai/gpt-4o`` is served by OpenAI itself
    or by OpenRouter, whichever is connected. ``name/model`` is that of the server the operator declared as ``name``,
    and so is a model that the declaration lists; while one that lists it is connected, nobody else is asked. Raises
    InvalidRequest that names the key to add.
    """
    possible = _declared_routes(model, providers)
    listed = [route for route in possible if route.provider.name in connected]
    if not possible or (not listed and model in possible[0].provider.models):
        possible += [route for row in providers.values() if (route := _route(model, row)) is not None]
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


def _declared_routes(model: str, providers: Mapping[str, Provider]) -> list[Route]:
    listing = [Route(row, model) for row in providers.values() if model in row.models]
    if listing:
        return listing
    name, _, rest = model.partition("/")
    provider = providers.get(name)
    return [Route(provider, rest)] if rest and provider is not None and provider.declared else []


def _route(model: str, provider: Provider) -> Route | None:
    if provider.declared:
        return None
    vendor, slash, name = model.partition("/")
    if provider.names_have_vendor:
        return Route(provider, model) if slash else None
    if not slash:
        return Route(provider, model)
    return Route(provider, name) if vendor == provider.name else None
