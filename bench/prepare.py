"""Makes the instance that is measured: workspaces, their provider keys, and API keys. Prints the keys as JSON.

Run with the portal's settings in the environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import flask_migrate
from provider import KEY, LIMITED

from app import create_app
from models import Workspace
from services import accounts, keys, provider_keys, workspaces
from services.actor import Actor
from services.secret import Secret

# The most a workspace can be given.
_OUT_OF_REACH = 1_000_000


def main() -> None:
    with create_app().app_context():
        flask_migrate.upgrade()
        free, limited = _workspace("free", _OUT_OF_REACH), _workspace("limited", LIMITED)
        names = {"load": free, "revoked": free, "killed": free, "limited": limited}
        print(json.dumps({name: _key(workspace, name) for name, workspace in names.items()}))


def _workspace(name: str, requests_per_minute: int) -> Workspace:
    actor = Actor(kind="command", name="bench")
    made = accounts.create_user(
        f"{name}@bench.example", Secret("a long bench password"), is_operator=False, actor=actor
    )
    workspaces.set_plan(made, "agency", requests_per_minute=requests_per_minute, actor=actor)
    provider_keys.save(made, "openai", Secret(KEY), actor=actor, check=False)
    return made


def _key(workspace: Workspace, name: str) -> dict[str, str]:
    actor = Actor(kind="command", name="bench")
    minted = keys.mint(
        workspace, actor=actor, name=name, kind="secret", environment="live", scopes=None, expires_at=None
    )
    return {"id": minted.key.id, "secret": minted.secret.reveal()}


if __name__ == "__main__":
    main()
