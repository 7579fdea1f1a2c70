"""How keys and moments are written in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson
from flask import Response

from blueprints.portal import PortalResponse
from models import ApiKey, ProviderKey
from services import keys, provider_keys, rotation
from services.rate_limits import RateState
from services.restrictions import as_dict


def json_response(value: Mapping[str, object], status: int = 200) -> Response:
    return PortalResponse([orjson.dumps(value)], status, content_type="application/json")


def empty_response() -> Response:
    """Return 204, which has no body and so no type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def moment(at: datetime | None) -> str | None:
    """Return ISO 8601 in UTC, ending in Z."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def key_object(key: ApiKey, last_use: keys.LastUse | None) -> dict[str, object]:
    """Return a key as the API shows it: everything about it but its secret."""
    previous = rotation.previous_secret(key)
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "kind": key.kind,
        "environment": key.environment,
        "scopes": key.scopes,
        "preset": key.preset,
        "masked": key.mask,
        "status": key.status(),
        "created_at": moment(key.created_at),
        "created_by": key.created_by_name,
        "expires_at": moment(key.expires_at),
        "disabled_at": moment(key.disabled_at),
        "last_used": last_use and {"at": moment(last_use.at), "address": last_use.address, "client": last_use.client},
        "restrictions": as_dict(keys.restrictions_of(key)),
        "rotation": previous and {"previous_masked": previous.mask, "previous_ends_at": moment(previous.ends_at)},
        "due_for_rotation": rotation.is_due(key),
    }


def provider_object(key: ProviderKey) -> dict[str, object]:
    """Return a provider key as the API shows it: how it stands, and no part of it.

    ``credit_nano_usd`` is what the provider told at the last check, null when it told nothing.
    """
    return {
        "id": key.id,
        "object": "provider_key",
        "provider": key.provider,
        "title": provider_keys.title_of(key),
        "label": key.label,
        "state": key.state,
        "state_message": key.state_words,
        "state_seen_at": moment(key.state_seen_at),
        "checked_at": moment(key.checked_at),
        "credit_nano_usd": key.credit_nano_usd,
        "created_at": moment(key.created_at),
        "updated_at": moment(key.updated_at),
        "created_by": key.created_by_name,
    }


def rate_object(rate: RateState) -> dict[str, object]:
    """Return the tighter of the limits that count a key's calls; ``reset`` is in Unix seconds, as in the headers."""
    return {"limit": rate.limit, "remaining": rate.remaining, "reset": math.ceil(rate.reset_at)}
