"""Scopes that a workspace defines to guard its own services, beside the built-in ones."""

from __future__ import annotations

import re

from sqlalchemy import select

from extensions import db
from models import ApiKey, CustomScope, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit
from services.actor import Actor
from services.errors import InvalidInput, NotFound
from services.permissions import PUBLISHABLE_SCOPES, Scope

MOST = 100
MEANING_LENGTH = 200
_FORM = re.compile(r"[a-z][a-z0-9_-]{0,28}:[a-z][a-z0-9_-]{0,28}")
_BUILT_IN_RESOURCES = {scope.partition(":")[0] for scope in Scope}


def define(workspace: Workspace, name: str, meaning: str, *, actor: Actor) -> CustomScope:
    """Add a scope such as ``emails:send``. Raises InvalidInput."""
    name, meaning = name.strip(), " ".join(meaning.split())
    with transaction() as session:
        one_at_a_time(f"custom_scope:{workspace.id}")
        faults = {"name": _name_fault(workspace, name), "meaning": _meaning_fault(meaning)}
        found = {field: fault for field, fault in faults.items() if fault is not None}
        if found:
            raise InvalidInput(found)
        scope = CustomScope(
            id=new_id("scp"),
            workspace_id=workspace.id,
            name=name,
            meaning=meaning,
            created_at=now(),
            created_by_name=actor.name,
        )
        session.add(scope)
        session.flush()
        audit.record(workspace.id, actor, "scope:create", object_id=scope.id, object_name=name)
    return scope


def remove(workspace: Workspace, scope_id: str, *, actor: Actor) -> None:
    """Remove a scope that no living key has. Raises NotFound, InvalidInput."""
    with transaction() as session:
        one_at_a_time(f"custom_scope:{workspace.id}")
        # No key may be made with it meanwhile.
        one_at_a_time(f"key:create:{workspace.id}")
        scope = get(workspace, scope_id)
        users = [key.name for key in _living_keys(workspace) if scope.name in key.scopes]
        if users:
            raise InvalidInput({"name": f"{scope.name} is used by “{users[0]}”. Delete the keys that have it first"})
        session.delete(scope)
        session.flush()
        audit.record(workspace.id, actor, "scope:delete", object_id=scope_id, object_name=scope.name)


def of_workspace(workspace: Workspace) -> list[CustomScope]:
    """The workspace's own scopes, in alphabetical order."""
    query = select(CustomScope).where(CustomScope.workspace_id == workspace.id)
    return list(db.session.scalars(query.order_by(CustomScope.name)))


def get(workspace: Workspace, scope_id: str) -> CustomScope:
    """Raises NotFound."""
    query = select(CustomScope).where(CustomScope.workspace_id == workspace.id, CustomScope.id == scope_id)
    scope = db.session.scalars(query).first()
    if scope is None:
        raise NotFound
    return scope


def known(workspace: Workspace) -> set[str]:
    """Every scope that a key of the workspace can have."""
    return {scope.value for scope in Scope} | {scope.name for scope in of_workspace(workspace)}


def publishable(scope: str) -> bool:
    """Tell whether a publishable key may have the scope: those that only read, and nothing about money."""
    if scope.partition(":")[0] in _BUILT_IN_RESOURCES:
        return scope in PUBLISHABLE_SCOPES
    return scope.endswith(":read")


def _living_keys(workspace: Workspace) -> list[ApiKey]:
    query = select(ApiKey).where(ApiKey.workspace_id == workspace.id, ApiKey.deleted_at.is_(None))
    return list(db.session.scalars(query))


def _name_fault(workspace: Workspace, name: str) -> str | None:
    if not name:
        return "Enter a name such as emails:send"
    if not _FORM.fullmatch(name):
        return "Write it as resource:action in small letters, such as emails:send"
    if name.partition(":")[0] in _BUILT_IN_RESOURCES:
        return f"“{name.partition(':')[0]}” is a resource of the portal. Choose another"
    existing = of_workspace(workspace)
    if name in {scope.name for scope in existing}:
        return "This scope exists already"
    if len(existing) >= MOST:
        return f"A workspace has at most {MOST} scopes of its own"
    return None


def _meaning_fault(meaning: str) -> str | None:
    if not meaning:
        return "Say in a sentence what it allows"
    if len(meaning) > MEANING_LENGTH or not meaning.isprintable():
        return f"Use at most {MEANING_LENGTH} printable characters"
    return None
