"""Workspaces, their members and their plan."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from sqlalchemy import func, select, update

from extensions import db
from models import LoginSession, Membership, User, Workspace
from models.base import new_id, now, one_at_a_time, transaction
from services import audit, names, time_zones
from services.actor import Actor
from services.errors import InvalidInput, NotFound
from services.parts import parts
from services.permissions import Role
from services.plans import FIRST_PLAN

_SLUG_LENGTH = 40
MOST_REQUESTS_PER_MINUTE = 1_000_000
# So that nobody fills the portal with empty ones.
MOST_OWNED = 50
PLAN_WORDS_LENGTH = 300


def create(name: str, *, owner: User | None, actor: Actor, plan: str = FIRST_PLAN, time_zone: str = "UTC") -> Workspace:
    """Make a workspace; its slug comes from the name. A demo workspace may begin without an owner."""
    with transaction() as session:
        one_at_a_time("workspace:create")
        workspace = Workspace(
            id=new_id("ws"),
            slug=_free_slug(name),
            name=name[:60],
            plan=plan,
            requests_per_minute=None,
            time_zone=time_zone,
            created_at=now(),
        )
        session.add(workspace)
        session.flush()
        audit.record(workspace.id, actor, "workspace:create", object_id=workspace.id, object_name=workspace.name)
        if owner is not None:
            add_member(workspace, owner, Role.OWNER, actor=actor)
    return workspace


def open_another(name: str, *, owner: User, actor: Actor) -> Workspace:
    """Make one more workspace for a person, as the page does. Raises InvalidInput."""
    name = name.strip()
    if fault := names.fault_of(name, "a name for the workspace"):
        raise InvalidInput({"name": fault})
    with transaction():
        one_at_a_time(f"workspace:open:{owner.id}")
        owned = select(func.count()).where(Membership.user_id == owner.id, Membership.role == Role.OWNER.value)
        if (db.session.scalar(owned) or 0) >= MOST_OWNED:
            raise InvalidInput({"name": f"You own {MOST_OWNED} workspaces already. Delete one you no longer need"})
        return create(name, owner=owner, actor=actor, time_zone=owner.time_zone)


def change(workspace: Workspace, *, name: str, time_zone: str, actor: Actor) -> None:
    """Give a workspace another name and zone; its slug stays, because programs name it. Raises InvalidInput."""
    name = name.strip()
    faults = {}
    if name != workspace.name and (fault := names.fault_of(name, "a name for the workspace")):
        faults["name"] = fault
    if time_zone != workspace.time_zone and not time_zones.known(time_zone):
        faults["time_zone"] = "Choose a time zone"
    if faults:
        raise InvalidInput(faults)
    with transaction() as session:
        session.refresh(workspace, with_for_update={"key_share": True})
        given = {"name": name, "time_zone": time_zone}
        changed = {field: value for field, value in given.items() if getattr(workspace, field) != value}
        if not changed:
            return
        before = {field: getattr(workspace, field) for field in changed}
        for field, value in changed.items():
            setattr(workspace, field, value)
        session.flush()
        audit.record(
            workspace.id,
            actor,
            "workspace:change",
            object_id=workspace.id,
            object_name=workspace.name,
            details={"from": before, "to": changed},
        )


def move_sessions(user_id: str, workspace_id: str) -> None:
    """Let the browsers of a person who has no place here any more look at another workspace of theirs, or at none.

    Part of an act that has ended the membership.
    """
    place = (
        select(Membership.workspace_id)
        .where(Membership.user_id == user_id)
        .order_by(Membership.created_at, Membership.workspace_id)
        .limit(1)
    )
    db.session.execute(
        update(LoginSession)
        .where(LoginSession.user_id == user_id, LoginSession.workspace_id == workspace_id)
        .values(workspace_id=place.scalar_subquery())
    )


def add_member(
    workspace: Workspace, user: User, role: Role, *, actor: Actor, details: Mapping[str, str] | None = None
) -> Membership:
    """Give a user a place in the workspace. ``details`` go to the audit log beside the role."""
    with transaction() as session:
        membership = Membership(workspace_id=workspace.id, user_id=user.id, role=role.value, created_at=now())
        session.add(membership)
        session.flush()
        told = {"role": role.value, **(details or {})}
        audit.record(workspace.id, actor, "member:add", object_id=user.id, object_name=user.email, details=told)
    return membership


def all_workspaces() -> list[Workspace]:
    """Every workspace, for the operator."""
    return list(db.session.scalars(select(Workspace).order_by(Workspace.slug)))


def without_members() -> list[Workspace]:
    """Workspaces that nobody can open, such as the demo before there is an operator."""
    query = select(Workspace).outerjoin(Membership).where(Membership.user_id.is_(None))
    return list(db.session.scalars(query.order_by(Workspace.created_at)))


def get(workspace_id: str) -> Workspace:
    """Raises NotFound."""
    workspace = db.session.get(Workspace, workspace_id)
    if workspace is None:
        raise NotFound
    return workspace


def locked(workspace_id: str) -> Workspace:
    """Return a workspace for an act that depends on it; another such act waits. Call it inside the act's transaction.

    Raises NotFound.
    """
    # A lock that lets foreign keys be checked meanwhile.
    query = select(Workspace).where(Workspace.id == workspace_id).with_for_update(key_share=True)
    workspace = db.session.scalars(query.execution_options(populate_existing=True)).first()
    if workspace is None:
        raise NotFound
    return workspace


def get_by_slug(slug: str) -> Workspace:
    """Raises NotFound."""
    workspace = db.session.scalars(select(Workspace).where(Workspace.slug == slug)).first()
    if workspace is None:
        raise NotFound(f"There is no workspace {slug!r}.")
    return workspace


def memberships_of(user: User) -> list[Membership]:
    """Where the user belongs, oldest first."""
    query = select(Membership).where(Membership.user_id == user.id)
    return list(db.session.scalars(query.order_by(Membership.created_at, Membership.workspace_id)))


def first_of(user: User) -> Workspace | None:
    """Return the workspace that the user joined first, where a sign-in leads; None for who belongs to none."""
    memberships = memberships_of(user)
    return memberships[0].workspace if memberships else None


def find_membership(user_id: str, workspace_id: str | None) -> Membership | None:
    return db.session.get(Membership, (workspace_id, user_id)) if workspace_id is not None else None


def look_at(session_row: LoginSession, workspace_id: str) -> None:
    """Let a signed-in browser look at another workspace of its user. Raises NotFound for any other."""
    with transaction() as session:
        if find_membership(session_row.user_id, workspace_id) is None:
            raise NotFound
        session_row.workspace_id = workspace_id
        session.flush()


def set_plan(
    workspace: Workspace,
    plan: str,
    *,
    requests_per_minute: int | None,
    actor: Actor,
    words: str | None = None,
    reason: str | None = None,
) -> None:
    """Put the workspace on a plan, at once. ``requests_per_minute`` None means what the plan gives.

    ``words`` are what its members read about the plan, such as when it is renewed; None leaves them as they are. The
    reason goes to the audit log. Raises InvalidInput for an unknown plan, a limit that makes no sense, words too long.
    """
    table = parts().plans
    if plan not in table.plans:
        raise InvalidInput({"plan": f"There is no plan {plan!r}. There are: {', '.join(table.plans)}."})
    if requests_per_minute is not None:
        if not table.plans[plan].api_access:
            raise InvalidInput({"requests_per_minute": f"{table.plans[plan].title} has no API access to limit."})
        if not 1 <= requests_per_minute <= MOST_REQUESTS_PER_MINUTE:
            raise InvalidInput({"requests_per_minute": f"Give a number from 1 to {MOST_REQUESTS_PER_MINUTE:,}."})
    if words is not None and len(words.strip()) > PLAN_WORDS_LENGTH:
        raise InvalidInput({"words": f"Use at most {PLAN_WORDS_LENGTH} characters."})
    workspace_id = workspace.id
    with transaction() as session:
        workspace = locked(workspace_id)
        before = workspace.plan
        workspace.plan = plan
        workspace.requests_per_minute = requests_per_minute
        if words is not None:
            workspace.plan_words = words.strip() or None
        session.flush()
        details = {"from": before, "to": plan, "requests_per_minute": requests_per_minute}
        if reason is not None:
            details["reason"] = reason
        audit.record(
            workspace.id, actor, "plan:change", object_id=workspace.id, object_name=workspace.name, details=details
        )


def _free_slug(name: str) -> str:
    """Return a slug nobody has: ``northwind-labs``, then ``northwind-labs-2`` and so on."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_LENGTH].strip("-") or "workspace"
    taken = set(db.session.scalars(select(Workspace.slug).where(Workspace.slug.like(f"{base}%"))))
    number = 1
    while (slug := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return slug
