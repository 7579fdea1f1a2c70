"""The models a key can use now, with the provider that serves each."""

from __future__ import annotations

import time
from typing import Any

import orjson

from services import provider_keys
from services.errors import NotFound, PortalError
from services.gate import KeyFacts
from services.gateway import faults, simulator
from services.gateway.providers import Provider
from services.gateway.routing import usable
from services.gateway.upstream import TooLarge, Unreachable
from services.parts import parts
from services.provider_keys import Sealed

_WAIT_SECONDS = 10.0


def models(key: KeyFacts) -> list[dict[str, Any]]:
    """Return the models in OpenAI's form with a ``provider`` field; the simulator's for a test key.

    A provider that fails is left out while another one answers. Raises ProviderFailed when none does.
    """
    if key.environment == "test":
        return [_entry({"id": name, "owned_by": owner}, simulator.PROVIDER) for name, owner in simulator.MODELS.items()]
    found, failures = [], []
    keys, known = provider_keys.connected_in(key.workspace_id, key.provider_keys), parts().providers
    connected = usable(keys, known)
    for provider in known.values():
        if provider.name in connected:
            try:
                found += _of_provider(provider, keys.get(provider.name))
            except PortalError as error:
                found += [_entry({"id": name}, provider.name) for name in sorted(provider.models)]
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


def _of_provider(provider: Provider, sealed: Sealed | None) -> list[dict[str, Any]]:
    pause = parts().breakers.refused_for(sealed.row_id if sealed else provider.name, trial=False)
    if pause:
        raise faults.left_alone(provider, pause)
    key = provider_keys.unseal(sealed) if sealed else None
    until = time.monotonic() + _WAIT_SECONDS
    try:
        answer = parts().upstream.send("GET", provider.url("/models"), key, until=until)
        content = answer.read()
    except Unreachable as error:
        raise faults.unreachable(provider, error.reason) from error
    except TooLarge as error:
        raise faults.no_answer(provider, "too large") from error
    if answer.status != 200:
        raise faults.refusal(provider, answer.status, answer.retry_after, content, key)
    try:
        listed = orjson.loads(content)["data"]
        told = {item["id"]: item for item in listed if isinstance(item.get("id"), str)}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise faults.no_answer(provider, "no list of models") from error
    told |= {name: {"id": name} for name in provider.models if name not in told}
    return [_entry(item | {"id": _asked_for_as(provider, name)}, provider.name) for name, item in told.items()]


def _asked_for_as(provider: Provider, name: str) -> str:
    """Return what a caller has to name so that the model is found at this provider."""
    return f"{provider.name}/{name}" if provider.declared and name not in provider.models else name


def _entry(item: dict[str, Any], provider: str) -> dict[str, Any]:
    created = item.get("created")
    return {
        "id": item["id"],
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": str(item.get("owned_by") or item["id"].partition("/")[0]),
        "provider": provider,
    }
