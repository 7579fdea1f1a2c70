"""The end of an account: its person deletes it. What others share with them stays, without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import delete, select

from extensions import db
from models import ApiKey, Membership, User, Workspace
from models.base import one_at_a_time, transaction
from services import account_mail, accounts, audit, customers, members, workspace_end, workspaces
from services.actor import Actor
from services.errors import InvalidInput, NotFound
from services.permissions import Role

LAST_OPERATOR = "You are the last operator. Make another one first."
CHANGED = "Your workspaces have just changed. Look at what goes with your account again."

_log = structlog.get_logger("accounts")


@dataclass(frozen=True, slots=True)
class Shared:
    """A workspace that goes on without the person, the keys they have there, and who may take them over."""

    workspace: Workspace
    keys: list[ApiKey]
    heirs: list[Membership]


@dataclass(frozen=True, slots=True)
class Consequences:
    """What goes with an account. It cannot go while others depend on the person: as owner, or as operator."""

    alone: list[Workspace]
    shared: list[Shared]
    only_owner_of: list[Workspace]
    last_operator: bool

    @property
    def prevented(self) -> bool:
        return self.last_operator or bool(self.only_owner_of)


def consequences(user: User) -> Consequences:
    """Return what the end of the account would mean."""
    alone, shared, only_owner_of = [], [], []
    for membership in workspaces.memberships_of(user):
        workspace = membership.workspace
        is_owner = Role(membership.role) is Role.OWNER
        if is_owner and len(members.of_workspace(workspace)) == 1:
            alone.append(workspace)
        elif is_owner and len(members.owners_of(workspace)) == 1:
            only_owner_of.append(workspace)
        else:
            owned = members.keys_of(workspace, user.id)
            shared.append(Shared(workspace, owned, members.heirs_of(workspace, user.id)))
    return Consequences(alone, shared, only_owner_of, customers.is_last_operator(user))


def delete_account(user_id: str, *, seen: set[str], heirs: Mapping[str, str | None], actor: Actor) -> None:
    """Delete a person's account with their ways in and the workspaces in which they are alone; they leave the others.

    ``seen`` are the ids of the workspaces that they were told go with it. ``heirs`` says for each workspace that stays,
    and in which they have keys, who takes those over, or None to end them. Audit entries stay as they are written, with
    the address. Raises NotFound, and InvalidInput when something is in the way or has changed.
    """
    with transaction() as session:
        _hold(user_id)
        user = customers.locked(user_id)
        found = consequences(user)
        _refuse_unless_free(found, seen, heirs)
        for shared in found.shared:
            workspace, heir_id = shared.workspace, heirs.get(shared.workspace.id)
            audit.record(workspace.id, actor, "user:delete", object_id=user_id, object_name=user.email)
            members.remove(workspace, user_id, actor=actor, heir_id=heir_id)
        for workspace_id in [workspace.id for workspace in found.alone]:
            workspace_end.delete_workspace(workspace_id, actor=actor)
        _refuse_if_another_came(user_id)
        if user.email_confirmed_at is not None:
            account_mail.send(user.email, account_mail.account_deleted(), actor)
        # Sessions, factors, identities and mailed links go with it by the foreign keys.
        session.execute(delete(User).where(User.id == user_id))
    db.session.expire_all()
    _log.warning("account deleted", user=user_id, address=actor.address, workspaces=len(seen))


def _hold(user_id: str) -> None:
    """Let nobody change the person's workspaces meanwhile: in one order, and before any row is locked."""
    query = select(Membership.workspace_id).where(Membership.user_id == user_id).order_by(Membership.workspace_id)
    for workspace_id in list(db.session.scalars(query)):
        members.alone_with(workspace_id)
        # As whoever leaves: no key may come to be that nobody would inherit.
        one_at_a_time(f"key:create:{workspace_id}")


def _refuse_unless_free(found: Consequences, seen: set[str], heirs: Mapping[str, str | None]) -> None:
    if found.last_operator:
        raise InvalidInput({"account": LAST_OPERATOR})
    if found.only_owner_of:
        names = ", ".join(workspace.name for workspace in found.only_owner_of)
        raise InvalidInput({"account": f"You are the only owner of {names}. {members.LAST_OWNER}"})
    undecided = [shared for shared in found.shared if shared.keys and shared.workspace.id not in heirs]
    if undecided or {workspace.id for workspace in found.alone} != seen:
        raise InvalidInput({"account": CHANGED})


def _refuse_if_another_came(user_id: str) -> None:
    """A workspace that the person makes, or enters, at this very moment would be left without them."""
    # Waits for whoever adds one, and lets nobody add another.
    user = db.session.get(User, user_id, populate_existing=True, with_for_update=True)
    if user is None:
        raise NotFound
    if workspaces.memberships_of(user):
        raise InvalidInput({"account": CHANGED})


def is_confirmed_by(user: User, email: str) -> bool:
    """Tell whether somebody has typed the address of the account that they delete."""
    return accounts.stored_form(email) == user.email
