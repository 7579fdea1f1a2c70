"""The key that calls, in the words of the services."""

from __future__ import annotations

from blueprints.v1.auth import current_call
from models import ApiKey, Workspace
from services import keys, workspaces
from services.actor import Actor

_CLIENT_LENGTH = 200


def current_workspace() -> Workspace:
    return workspaces.get(current_call().key.workspace_id)


def current_key(workspace: Workspace) -> ApiKey:
    return keys.get(workspace, current_call().key.key_id)


def current_actor() -> Actor:
    """Who the audit log names for what this call does."""
    call = current_call()
    client = (call.client or "").replace("\0", "")[:_CLIENT_LENGTH] or None
    return Actor(kind="api_key", id=call.key.key_id, name=call.key.name, address=call.address, client=client)


def current_ceiling(workspace: Workspace) -> keys.Ceiling:
    """What the calling key may pass on to another."""
    key = current_key(workspace)
    return keys.Ceiling(frozenset(key.scopes), key.expires_at, key.environment, keys.restrictions_of(key))
