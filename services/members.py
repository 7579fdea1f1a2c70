"""The people of a workspace: who they are, which role they have, and how they leave.

Whoever acts is judged inside the act's transaction, by the role that they have then. All acts on the members of one
workspace run one after the other, so that of two owners who leave at the same moment one stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Select, and_, bindparam, func, or_, select, update

from extensions import db
from models import ApiKey, Membership, User, Workspace
from models.base import now, one_at_a_time, transaction
from models.quick import DatabaseUnavailable, Prepared
from services import audit, keys, mail, workspaces
from services.actor import Actor
from services.errors import InvalidInput, NotFound, PermissionRefused
from services.parts import parts
from services.permissions import Role

LAST_OWNER = "Make someone else an owner first."
_SEEN_AGAIN_AFTER = timedelta(minutes=5)


# ---- Questions


def owners_of(workspace: Workspace) -> list[User]:
    """Return the owners, those who became members first in front; a demo workspace may have none."""
    return _with_role(workspace, Role.OWNER)


def managers_of(workspace: Workspace) -> list[User]:
    """Return the owners and admins: who may change every key, and gets mail about them."""
    return _with_role(workspace, Role.OWNER, Role.ADMIN)


def of_workspace(workspace: Workspace) -> list[Membership]:
    """Return all members, those who joined first in front."""
    return list(db.session.scalars(_listed(workspace)))


def page(workspace: Workspace, *, limit: int, after: str | None = None) -> tuple[list[Membership], bool]:
    """Return members in the order in which they joined, from after the one with that user id, and whether more follow.

    Raises NotFound when no such user is a member.
    """
    query = _listed(workspace)
    if after is not None:
        last = get(workspace, after)
        same_moment = and_(Membership.created_at == last.created_at, Membership.user_id > last.user_id)
        query = query.where(or_(Membership.created_at > last.created_at, same_moment))
    found = list(db.session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def get(workspace: Workspace, user_id: str) -> Membership:
    """Raises NotFound for who is no member."""
    membership = workspaces.find_membership(user_id, workspace.id)
    if membership is None:
        raise NotFound
    return membership


def keys_of(workspace: Workspace, user_id: str) -> list[ApiKey]:
    """Return the living keys that a person manages as the one who made them, by name."""
    query = select(ApiKey).where(
        ApiKey.workspace_id == workspace.id, ApiKey.created_by_id == user_id, ApiKey.deleted_at.is_(None)
    )
    return list(db.session.scalars(query.order_by(ApiKey.name)))


def heirs_of(workspace: Workspace, user_id: str) -> list[Membership]:
    """Return the members who can take over the keys of one: all others who may have keys, owners first."""
    others = [one for one in of_workspace(workspace) if one.user_id != user_id]
    able = [one for one in others if Role(one.role).includes(Role.DEVELOPER)]
    return sorted(able, key=lambda one: -Role(one.role).rank)


def assignable(actor_role: Role) -> list[Role]:
    """Return the roles that somebody may give: only owners appoint owners."""
    return [role for role in Role if actor_role.includes(Role.ADMIN) and (role, actor_role) != (Role.OWNER, Role.ADMIN)]


def may_manage(actor_role: Role, member_role: Role) -> bool:
    """Tell whether somebody may change or remove a member: owners everybody, admins everybody but owners."""
    return actor_role is Role.OWNER or (actor_role is Role.ADMIN and member_role is not Role.OWNER)


# ---- Acts


def change_role(workspace: Workspace, user_id: str, role: str, *, actor: Actor) -> Membership:
    """Give a member another role. Raises NotFound, PermissionRefused, InvalidInput for no role and the last owner."""
    if role not in {one.value for one in Role}:
        raise InvalidInput({"role": "Choose a role"})
    new = Role(role)
    with transaction() as session:
        alone_with(workspace.id)
        membership = get(workspace, user_id)
        before = Role(membership.role)
        require_power_over(workspace, actor, before, new)
        if actor.user_id == user_id and new.rank > before.rank:
            raise PermissionRefused("Nobody can raise their own role.")
        if new is before:
            return membership
        if before is Role.OWNER:
            _require_another_owner(workspace, user_id)
        membership.role = new.value
        session.flush()
        details = {"from": before.value, "to": new.value}
        _record(workspace, actor, "member:change_role", membership.user, details)
        _tell(workspace, membership.user, actor, "role_changed", f"Your role in {workspace.name} has changed", new)
    return membership


def remove(workspace: Workspace, user_id: str, *, actor: Actor, heir_id: str | None) -> None:
    """End a membership: another's, or as leaving one's own. It holds for the next request of every browser.

    The person's keys go to the member ``heir_id``, or end now with None. Raises NotFound, PermissionRefused, and
    InvalidInput for an heir who cannot have keys and for the last owner.
    """
    with transaction() as session:
        alone_with(workspace.id)
        # No key may come to be meanwhile that nobody would inherit.
        one_at_a_time(f"key:create:{workspace.id}")
        membership = get(workspace, user_id)
        person, leaves = membership.user, actor.user_id == user_id
        if not leaves:
            require_power_over(workspace, actor, Role(membership.role), Role(membership.role))
        if Role(membership.role) is Role.OWNER:
            _require_another_owner(workspace, user_id)
        heir = _heir(workspace, user_id, heir_id)
        owned = [keys.locked(workspace, key.id) for key in keys_of(workspace, user_id)]
        for key in owned:
            _pass_on(workspace, key, heir, actor)
        session.delete(membership)
        session.flush()
        workspaces.move_sessions(user_id, workspace.id)
        details = {"role": membership.role, "keys": len(owned), "keys_go_to": heir.email if heir else None}
        _record(workspace, actor, "member:leave" if leaves else "member:remove", person, details)
        if not leaves:
            _tell(workspace, person, actor, "member_removed", f"You are no longer a member of {workspace.name}")


def note_seen(membership: Membership) -> None:
    """Note that a member looks at the workspace, every few minutes."""
    seen_at = membership.last_seen_at
    if seen_at is not None and now() - seen_at < _SEEN_AGAIN_AFTER:
        return
    try:
        parts().quick.run(_SEEN, {"workspace": membership.workspace_id, "user": membership.user_id, "at": now()})
    except DatabaseUnavailable:
        # Who only reads must not be stopped by a database that cannot write.
        return


# ---- Parts of the acts, also for invitations and for the end of a workspace


def alone_with(workspace_id: str) -> None:
    """Let no other act change the members or invitations of the workspace until this one's transaction ends."""
    one_at_a_time(f"members:{workspace_id}")


def power_of(workspace: Workspace, actor: Actor) -> Role:
    """Return the role with which somebody acts: a person's own at this moment, an operator's and a command's is owner.

    Raises PermissionRefused for who has none.
    """
    if actor.kind in ("command", "operator", "system"):
        return Role.OWNER
    membership = workspaces.find_membership(actor.user_id, workspace.id) if actor.user_id else None
    if membership is None:
        raise PermissionRefused
    return Role(membership.role)


def require_power_over(workspace: Workspace, actor: Actor, *roles: Role) -> None:
    """Raise PermissionRefused unless the actor may make or unmake members with these roles."""
    power = power_of(workspace, actor)
    if not power.includes(Role.ADMIN):
        raise PermissionRefused("You need the admin role for this.")
    if not all(may_manage(power, role) for role in roles):
        raise PermissionRefused("Only owners can make or unmake owners.")


def confirmed(user: User) -> bool:
    """Tell whether mail may go to the person's address."""
    return user.email_confirmed_at is not None and user.closed_at is None


def _listed(workspace: Workspace) -> Select[Membership]:
    query = select(Membership).where(Membership.workspace_id == workspace.id)
    return query.order_by(Membership.created_at, Membership.user_id)


def _with_role(workspace: Workspace, *roles: Role) -> list[User]:
    query = (
        select(User)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.workspace_id == workspace.id, Membership.role.in_([role.value for role in roles]))
    )
    return list(db.session.scalars(query.order_by(Membership.created_at, User.id)))


def _require_another_owner(workspace: Workspace, user_id: str) -> None:
    others = select(func.count()).where(
        Membership.workspace_id == workspace.id, Membership.user_id != user_id, Membership.role == Role.OWNER.value
    )
    if not db.session.scalar(others):
        raise InvalidInput({"role": LAST_OWNER})


def _heir(workspace: Workspace, user_id: str, heir_id: str | None) -> User | None:
    if heir_id is None:
        return None
    heir = next((one.user for one in heirs_of(workspace, user_id) if one.user_id == heir_id), None)
    if heir is None:
        raise InvalidInput({"keys": "Choose who takes over the keys"})
    return heir


def _pass_on(workspace: Workspace, key: ApiKey, heir: User | None, actor: Actor) -> None:
    if heir is None:
        keys.erase(key)
        audit.record(workspace.id, actor, "key:delete", object_id=key.id, object_name=key.name)
        return
    details = {"from": key.created_by_name, "to": heir.email}
    key.created_by_id, key.created_by_name = heir.id, heir.email
    audit.record(workspace.id, actor, "key:hand_over", object_id=key.id, object_name=key.name, details=details)


def _record(workspace: Workspace, actor: Actor, action: str, person: User, details: Mapping[str, object]) -> None:
    audit.record(workspace.id, actor, action, object_id=person.id, object_name=person.email, details=details)


def _tell(
    workspace: Workspace, person: User, actor: Actor, template: str, subject: str, role: Role | None = None
) -> None:
    """Write to the one concerned, unless they did it themselves."""
    if actor.user_id == person.id or not confirmed(person):
        return
    words = {"role": role.value} if role else {}
    mail.queue(
        person.email,
        subject,
        template,
        workspace.id,
        workspace_name=workspace.name,
        actor_name=actor.name,
        at=now(),
        **words,
    )


_SEEN = Prepared(
    update(Membership)
    .where(Membership.workspace_id == bindparam("workspace"), Membership.user_id == bindparam("user"))
    .values(last_seen_at=bindparam("at", type_=Membership.last_seen_at.type))
)
