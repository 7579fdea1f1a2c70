"""Questions about the people of a workspace."""

from __future__ import annotations

from sqlalchemy import select

from extensions import db
from models import Membership, User, Workspace
from services.permissions import Role


def owners_of(workspace: Workspace) -> list[User]:
    """Return the owners, those who became members first in front; a demo workspace may have none."""
    query = (
        select(User)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.workspace_id == workspace.id, Membership.role == Role.OWNER.value)
    )
    return list(db.session.scalars(query.order_by(Membership.created_at, User.id)))
