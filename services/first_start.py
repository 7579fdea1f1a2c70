"""What an empty instance gets at its first start: a demo workspace to call, and a link for the operator."""

from __future__ import annotations

from sqlalchemy import select

from extensions import db
from models import User, Workspace
from models.base import one_at_a_time, transaction
from services import keys, workspaces
from services.actor import SYSTEM
from services.parts import parts
from services.secret import Secret


def is_empty() -> bool:
    """Tell whether nobody has used this instance yet."""
    return not any(db.session.scalars(select(table.id).limit(1)).first() for table in (User, Workspace))


def make_demo() -> Secret | None:
    """Make the demo workspace with a test key and return the key; None, and nothing changed, unless all is empty."""
    with transaction():
        one_at_a_time("demo:create")
        if not is_empty():
            return None
        plan = parts().plans.first_with_api_access.name
        workspace = workspaces.create("Demo", owner=None, actor=SYSTEM, plan=plan)
        minted = keys.mint(workspace, actor=SYSTEM, name="First steps", kind="secret", environment="test")
        return minted.secret
