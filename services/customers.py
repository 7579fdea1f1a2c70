"""Everybody who has an account here and every workspace, as the operator sees them, and what the operator does to them.

What an operator does is in the audit log of each workspace that it concerns, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select

from extensions import db
from models import ApiKey, Membership, UsageRecord, User, Workspace
from models.base import now, transaction
from services import account_mail, accounts, workspaces
from services.actor import Actor
from services.errors import InvalidInput, NotFound, PermissionRefused
from services.pages import Page, page_of
from services.parts import parts
from services.usage import COUNTED

REASON_LENGTH = 500
USAGE_DAYS = 30
_WORDS_LENGTH = 100


# ---- looking


@dataclass(frozen=True, slots=True)
class WorkspaceFacts:
    """A workspace in the operator's list. ``keys`` counts those that work, but for the plan."""

    workspace: Workspace
    members: int
    keys: int
    requests: int
    last_sign_in_at: datetime | None


@dataclass(frozen=True, slots=True)
class UserFacts:
    """A person in the operator's list, with where they belong."""

    user: User
    memberships: list[Membership]


def find_workspaces(words: str, number: int = 1) -> Page[WorkspaceFacts]:
    """Return a page of the workspaces with the words in their name, slug or a member's e-mail address."""
    query = select(Workspace)
    if wanted := _wanted(words):
        members = (
            select(Membership.workspace_id).join(User, User.id == Membership.user_id).where(_has(User.email, wanted))
        )
        query = query.where(or_(_has(Workspace.name, wanted), _has(Workspace.slug, wanted), Workspace.id.in_(members)))
    return page_of(query.order_by(Workspace.slug), number).mapped(facts_of)


def find_users(words: str, number: int = 1) -> Page[UserFacts]:
    """Return a page of the people with the words in their e-mail address or name."""
    query = select(User)
    if wanted := _wanted(words):
        query = query.where(or_(_has(User.email, wanted), _has(User.name, wanted)))
    return page_of(query.order_by(User.email), number).mapped(_with_memberships)


def get_user(user_id: str) -> User:
    """Raises NotFound."""
    user = db.session.get(User, user_id)
    if user is None:
        raise NotFound
    return user


def get_user_by_email(email: str) -> User:
    """Raises NotFound."""
    user = db.session.scalars(select(User).where(User.email == accounts.stored_form(email))).first()
    if user is None:
        raise NotFound(f"There is no account {email!r}.")
    return user


def all_users() -> list[User]:
    """Every user, for the operator's commands."""
    return list(db.session.scalars(select(User).order_by(User.email)))


def members_of(workspace: Workspace) -> list[Membership]:
    """Return the members of a workspace, the oldest first."""
    query = select(Membership).where(Membership.workspace_id == workspace.id)
    return list(db.session.scalars(query.order_by(Membership.created_at, Membership.user_id)))


def facts_of(found: Sequence[Workspace]) -> list[WorkspaceFacts]:
    """Return what the operator's list says about these workspaces."""
    ids = [workspace.id for workspace in found]
    at = now()
    alive = (
        ApiKey.deleted_at.is_(None),
        ApiKey.disabled_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at),
    )
    keys = _by_workspace(_counted(ApiKey.workspace_id, ids).where(*alive))
    lately = UsageRecord.started_at > at - timedelta(days=USAGE_DAYS)
    requests = _by_workspace(_counted(UsageRecord.workspace_id, ids).where(COUNTED, lately))
    members = _by_workspace(_counted(Membership.workspace_id, ids))
    latest: Any = func.max(User.last_sign_in_at)
    sign_ins = _by_workspace(
        select(Membership.workspace_id, latest)
        .join(User, User.id == Membership.user_id)
        .where(Membership.workspace_id.in_(ids))
        .group_by(Membership.workspace_id)
    )
    return [
        WorkspaceFacts(
            workspace=workspace,
            members=members.get(workspace.id, 0),
            keys=keys.get(workspace.id, 0),
            requests=requests.get(workspace.id, 0),
            last_sign_in_at=sign_ins.get(workspace.id),
        )
        for workspace in found
    ]


def workspaces_on_plans() -> dict[str, int]:
    """Return how many workspaces are on each plan that is in the table or in use."""
    found = dict.fromkeys(parts().plans.plans, 0)
    rows = db.session.execute(select(Workspace.plan, func.count()).group_by(Workspace.plan).order_by(Workspace.plan))
    return found | {plan: count for plan, count in rows}  # noqa: C416 - rows are no pairs for the type checker


def _wanted(words: str) -> str:
    return words.strip()[:_WORDS_LENGTH]


def _has(column: Any, words: str) -> ColumnElement[bool]:
    """The words as they stand: % and _ mean themselves. In any case."""
    return func.lower(column).contains(words.lower(), autoescape=True)


def _counted(column: Any, ids: list[str]) -> Select[Any]:
    return select(column, func.count()).where(column.in_(ids)).group_by(column)


def _by_workspace(query: Select[Any]) -> dict[str, Any]:
    return {workspace_id: found for workspace_id, found in db.session.execute(query)}  # noqa: C416 - as above


def _with_memberships(users: list[User]) -> list[UserFacts]:
    query = select(Membership).where(Membership.user_id.in_([user.id for user in users]))
    found: dict[str, list[Membership]] = {user.id: [] for user in users}
    for membership in db.session.scalars(query.order_by(Membership.created_at, Membership.workspace_id)):
        found[membership.user_id].append(membership)
    return [UserFacts(user, found[user.id]) for user in users]


# ---- acting


def set_plan(
    workspace: Workspace,
    plan: str,
    *,
    requests_per_minute: int | None,
    words: str | None,
    reason: str,
    actor: Actor,
) -> None:
    """Put a customer's workspace on a plan, at once; the reason goes to its audit log. Raises InvalidInput."""
    workspaces.set_plan(
        workspace,
        plan,
        requests_per_minute=requests_per_minute,
        words=words,
        reason=_checked(reason),
        actor=actor,
    )


def close_account(user: User, *, reason: str, actor: Actor) -> None:
    """End a person's sessions and let them in no more. Their workspaces and keys stay as they are.

    Closing it again changes nothing. Raises InvalidInput without a reason; PermissionRefused for one's own account and
    for the last operator, who could be let in again by nobody.
    """
    reason = _checked(reason)
    user_id = user.id
    if actor.id == user_id:
        raise PermissionRefused("You cannot close your own account. Another operator can.")
    with transaction():
        user = locked(user_id)
        if user.closed_at is not None:
            return
        if is_last_operator(user):
            raise PermissionRefused("This is the last operator. Make another one first.")
        accounts.close(user, actor, reason=reason)
        _tell(user, account_mail.account_closed(), actor)


def reopen_account(user: User, *, reason: str, actor: Actor) -> None:
    """Let a person in again. Reopening it again changes nothing. Raises InvalidInput without a reason."""
    reason = _checked(reason)
    user_id = user.id
    with transaction():
        user = locked(user_id)
        if user.closed_at is None:
            return
        accounts.reopen(user, actor, reason=reason)
        _tell(user, account_mail.account_reopened(), actor)


def _tell(user: User, words: account_mail.Words, actor: Actor) -> None:
    """Write to the person, if mail may go to the address. The reason is for the logs."""
    if user.email_confirmed_at is not None:
        account_mail.send(user.email, words, actor)


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise InvalidInput({"reason": "Give a reason: it goes to the workspace’s audit log"})
    if len(reason) > REASON_LENGTH:
        raise InvalidInput({"reason": f"Use at most {REASON_LENGTH} characters"})
    return reason


def locked(user_id: str) -> User:
    """Return a user for an act; another act on an operator waits, so that two do not close each other.

    Raises NotFound.
    """
    query = select(User).where(or_(User.id == user_id, User.is_operator)).order_by(User.id)
    # A lock that lets foreign keys be checked meanwhile.
    query = query.with_for_update(key_share=True)
    found = db.session.scalars(query.execution_options(populate_existing=True)).all()
    user = next((one for one in found if one.id == user_id), None)
    if user is None:
        raise NotFound
    return user


def is_last_operator(user: User) -> bool:
    """Tell whether without this person nobody could run the portal."""
    if not user.is_operator:
        return False
    query = select(User.id).where(User.is_operator, User.closed_at.is_(None), User.id != user.id)
    return db.session.scalars(query.limit(1)).first() is None
