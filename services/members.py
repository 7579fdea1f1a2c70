"""Questions about the people of a workspace."""

from __future__ import annotations

from sqlalchemy import select

from extensions import db
from models import Membership, User, Workspace
from services.permissions import Role


def owners_of(workspace: Workspace) -> list[User]:
    """Return the owners, those who became members first in front; a demo workspace may have none."""
    return _with_role(workspace, Role.OWNER)


def managers_of(workspace: Workspace) -> list[User]:
    """Return the owners and admins: who may change every key, and gets mail about them."""
    return _with_role(workspace, Role.OWNER, Role.ADMIN)


def _with_role(workspace: Workspace, *roles: Role) -> list[User]:
    query = (
        select(User)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.workspace_id == workspace.id, Membership.role.in_([role.value for role in roles]))
    )
    return list(db.session.scalars(query.order_by(Membership.created_at, User.id)))
