"""The end of a workspace: everything in it goes in one transaction."""

from __future__ import annotations

import structlog
from sqlalchemy import delete, select

from extensions import db
from models import ApiKey, MailMessage, Membership, ProviderKey, UsageRecord, User, Workspace
from models.base import now, transaction
from services import mail, members, workspaces
from services.actor import Actor
from services.errors import NotFound, PermissionRefused
from services.permissions import Role

_log = structlog.get_logger("workspaces")


def delete_workspace(workspace_id: str, *, actor: Actor) -> None:
    """Delete a workspace with all that it owns: keys, provider keys, usage, webhooks, its log, its mail.

    Its keys are unknown from the next request on, and browsers that look at it look at another workspace of their
    person, or at none. The portal's own log keeps the fact. Raises NotFound, and PermissionRefused for everybody but
    owners, operators and commands.
    """
    with transaction() as session:
        members.alone_with(workspace_id)
        # First the keys, as every act on a key takes its locks; calls being noted need none of these.
        for owned in (ApiKey, ProviderKey):
            rows = select(owned.id).where(owned.workspace_id == workspace_id).order_by(owned.id)
            session.execute(rows.with_for_update(key_share=True))
        # Entries of its log wait here, and so does whoever deletes it at the same time.
        query = select(Workspace).where(Workspace.id == workspace_id).with_for_update()
        workspace = session.scalars(query.execution_options(populate_existing=True)).first()
        if workspace is None:
            raise NotFound
        if members.power_of(workspace, actor) is not Role.OWNER:
            raise PermissionRefused("Only owners can delete a workspace.")
        name, slug = workspace.name, workspace.slug
        people = [membership.user for membership in members.of_workspace(workspace)]
        session.execute(delete(Membership).where(Membership.workspace_id == workspace_id))
        for person in people:
            workspaces.move_sessions(person.id, workspace_id)
        session.execute(delete(MailMessage).where(MailMessage.workspace_id == workspace_id))
        # By far the most rows, found by their own index instead of key by key.
        session.execute(delete(UsageRecord).where(UsageRecord.workspace_id == workspace_id))
        # What else it owns goes with it by the foreign keys.
        session.execute(delete(Workspace).where(Workspace.id == workspace_id))
        _tell([person for person in people if person.id != actor.user_id], name, actor)
    db.session.expire_all()
    _log.warning(
        "workspace deleted",
        workspace=workspace_id,
        slug=slug,
        by_kind=actor.kind,
        by=actor.id or actor.name,
        address=actor.address,
        members=len(people),
    )


def _tell(people: list[User], name: str, actor: Actor) -> None:
    for person in people:
        if members.confirmed(person):
            mail.queue(
                person.email,
                f"{name} was deleted",
                "workspace_deleted",
                workspace_name=name,
                actor_name=actor.name,
                at=now(),
            )
