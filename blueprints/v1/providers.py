"""``/v1/providers``: what the pages do with provider keys, for programs. No answer holds any part of a key."""

from __future__ import annotations

from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.body import read_body
from blueprints.v1.caller import current_actor, current_workspace
from blueprints.v1.objects import json_response, provider_object
from services import provider_keys
from services.errors import NotFound, PermissionRefused
from services.json_input import Fields, read_object
from services.parts import parts
from services.permissions import Scope
from services.secret import Secret

FIELDS = ("key", "label", "verify")


@bp.get("/providers")
@bearer_required(Scope.PROVIDERS_READ)
def list_providers() -> Response:
    """Every provider key of the workspace: there are no more of them than providers, so there are no pages."""
    found = [provider_object(key) for key in provider_keys.of_workspace(current_workspace())]
    return json_response({"object": "list", "data": found, "has_more": False, "next_cursor": None})


@bp.get("/providers/<name>")
@bearer_required(Scope.PROVIDERS_READ)
def get_provider(name: str) -> Response:
    return json_response(provider_object(provider_keys.get(current_workspace(), name)))


@bp.put("/providers/<name>")
@bearer_required(Scope.PROVIDERS_WRITE)
def put_provider(name: str) -> Response:
    """Test a key, then keep it in place of the one before. 201 for the first, 200 for another."""
    _refuse_test_key()
    workspace, known = current_workspace(), parts().providers
    if name not in known:
        raise NotFound(f"There is no such provider. There are: {', '.join(known)}.")
    fields = Fields(read_object(read_body()), FIELDS)
    key = fields.text("key", missing="Paste a key first.")
    label = fields.text("label")
    check = fields.flag("verify") is not False
    fields.refuse_faults()
    assert key is not None
    before = provider_keys.find(workspace, name)
    row = provider_keys.save(workspace, name, Secret(key), actor=current_actor(), label=label, check=check)
    return json_response(provider_object(row), 200 if before else 201)


@bp.delete("/providers/<name>")
@bearer_required(Scope.PROVIDERS_WRITE)
def delete_provider(name: str) -> Response:
    _refuse_test_key()
    workspace = current_workspace()
    row_id = provider_keys.get(workspace, name).id
    provider_keys.delete(workspace, name, actor=current_actor())
    return json_response({"id": row_id, "object": "provider_key", "provider": name, "deleted": True})


@bp.post("/providers/<name>/test")
@bearer_required(Scope.PROVIDERS_WRITE)
def test_provider(name: str) -> Response:
    """Ask the provider about the key that is kept; always 200 with the state that was found."""
    _refuse_test_key()
    return json_response(provider_object(provider_keys.check_saved(current_workspace(), name)))


def _refuse_test_key() -> None:
    """What a test key does reaches no provider, and touches nothing that live keys depend on."""
    if current_call().key.environment == "test":
        raise PermissionRefused("A test key cannot manage provider keys.")
