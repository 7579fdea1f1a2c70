"""The models a key can use now, with the provider that serves each."""

from __future__ import annotations

from typing import Any

import orjson

from services import provider_keys
from services.errors import NotFound, PortalError, ProviderFailed
from services.gate import KeyFacts
from services.gateway import faults, simulator
from services.gateway.providers import Provider
from services.gateway.upstream import Unreachable
from services.parts import parts
from services.secret import Secret

_WAIT_SECONDS = 10.0


def models(key: KeyFacts) -> list[dict[str, Any]]:
    """Return the models in OpenAI's form with a ``provider`` field; the simulator's for a test key.

    A provider that fails is left out while another one answers. Raises ProviderFailed when none does.
    """
    if key.environment == "test":
        return [_entry({"id": name, "owned_by": owner}, simulator.PROVIDER) for name, owner in simulator.MODELS.items()]
    found, failures = [], []
    for name, record in provider_keys.connected(key.workspace_id).items():
        provider = parts().providers[name]
        try:
            found += _of_provider(provider, provider_keys.unseal(record))
        except PortalError as error:
            failures.append(error)
    if failures and not found:
        raise failures[0]
    return found


def model(key: KeyFacts, model_id: str) -> dict[str, Any]:
    """Return one model by its id. Raises NotFound."""
    for entry in models(key):
        if entry["id"] == model_id:
            return entry
    raise NotFound(f"The model '{model_id}' does not exist or cannot be used.", code="model_not_found", param="model")


def _of_provider(provider: Provider, key: Secret) -> list[dict[str, Any]]:
    try:
        answer = parts().upstream.send("GET", provider.url("/models"), key, read_seconds=_WAIT_SECONDS)
        content = answer.read()
    except Unreachable as error:
        raise faults.unreachable(provider, error.reason) from error
    if answer.status != 200:
        raise faults.refusal(provider, answer.status, answer.retry_after, content, key)
    try:
        listed = orjson.loads(content)["data"]
        return [_entry(item, provider.name) for item in listed if isinstance(item.get("id"), str)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ProviderFailed(f"{provider.title} answered with something that is no list of models.") from error


def _entry(item: dict[str, Any], provider: str) -> dict[str, Any]:
    created = item.get("created")
    return {
        "id": item["id"],
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": str(item.get("owned_by") or item["id"].partition("/")[0]),
        "provider": provider,
    }
