"""Invitations: a link by mail that makes whoever it was sent to a member, once and for seven days.

The link proves that its opener reads mail at the address, and nothing else: only an account with that very address
can accept. To invite tells nobody whether the address has an account.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select

from extensions import db
from models import Invitation, LoginSession, Membership, User, Workspace
from models.base import delete_some, new_id, now, transaction
from services import accounts, audit, idempotency, mail, members, sessions, workspaces
from services.actor import Actor
from services.errors import InvalidInput, InvalidRequest, NotFound, PermissionRefused
from services.mail_transport import is_address
from services.parts import parts
from services.permissions import Role
from services.secret import Secret

LIFETIME = timedelta(days=7)
MOST_PENDING = 50
KEPT = timedelta(days=30)
_INVITER_LENGTH = 254
_OPEN = (Invitation.accepted_at.is_(None), Invitation.withdrawn_at.is_(None))


class InvitationOver(InvalidRequest):
    """The link was used, withdrawn, replaced by a newer one or is too old; or it never was one. Never said which."""

    status, code = 410, "invitation_over"
    message = "This invitation is no longer valid."


@dataclass(frozen=True, slots=True)
class Found:
    """An invitation that can be accepted, and where it leads."""

    invitation: Invitation
    workspace: Workspace


# ---- For the managers of a workspace


def pending(workspace: Workspace) -> list[Invitation]:
    """Return the invitations that nobody has accepted or withdrawn, the latest first; some may have expired."""
    query = select(Invitation).where(Invitation.workspace_id == workspace.id, *_OPEN)
    return list(db.session.scalars(query.order_by(Invitation.created_at.desc(), Invitation.id)))


def page(workspace: Workspace, *, limit: int, after: str | None = None) -> tuple[list[Invitation], bool]:
    """Return pending invitations from after the one with that id, and whether more follow.

    Raises NotFound when no such invitation is pending.
    """
    # A workspace has few.
    found = pending(workspace)
    if after is not None:
        get(workspace, after)
        found = found[[one.id for one in found].index(after) + 1 :]
    return found[:limit], len(found) > limit


def get(workspace: Workspace, invitation_id: str) -> Invitation:
    """Return a pending invitation of this workspace. Raises NotFound for every other id."""
    query = select(Invitation).where(Invitation.workspace_id == workspace.id, Invitation.id == invitation_id, *_OPEN)
    found = db.session.scalars(query).first()
    if found is None:
        raise NotFound
    return found


def invite(
    workspace: Workspace, email: str, role: str, *, inviter: User, actor: Actor, one_time_number: str | None = None
) -> Invitation:
    """Send an invitation to an address. Raises InvalidInput, PermissionRefused, AlreadyDone for a repeated number."""
    address = _checked(email, role)
    with transaction() as session:
        members.alone_with(workspace.id)
        idempotency.refuse_repetition(workspace, one_time_number)
        members.require_power_over(workspace, actor, Role(role))
        _require_room(workspace, address)
        invitation = Invitation(
            id=new_id("inv"),
            workspace_id=workspace.id,
            email=address,
            role=role,
            invited_by_id=inviter.id,
            invited_by_name=_told(inviter),
            created_at=now(),
        )
        _send(workspace, invitation)
        session.add(invitation)
        idempotency.remember(workspace, one_time_number, invitation.id)
        session.flush()
        _record(workspace, actor, "invitation:create", invitation)
    return invitation


def resend(workspace: Workspace, invitation_id: str, *, actor: Actor) -> Invitation:
    """Send a new link, good for seven days; the one before is dead. Raises NotFound, PermissionRefused."""
    with transaction() as session:
        members.alone_with(workspace.id)
        invitation = get(workspace, invitation_id)
        members.require_power_over(workspace, actor, Role(invitation.role))
        _send(workspace, invitation)
        session.flush()
        _record(workspace, actor, "invitation:resend", invitation)
    return invitation


def withdraw(workspace: Workspace, invitation_id: str, *, actor: Actor) -> Invitation:
    """End an invitation; its link is dead. Raises NotFound, PermissionRefused."""
    with transaction() as session:
        members.alone_with(workspace.id)
        invitation = get(workspace, invitation_id)
        members.require_power_over(workspace, actor, Role(invitation.role))
        invitation.withdrawn_at = now()
        session.flush()
        _record(workspace, actor, "invitation:withdraw", invitation)
    return invitation


def forget_old() -> bool:
    """Delete invitations that ended long ago, some at a time; tell whether there may be more."""
    limit = now() - KEPT
    ended = or_(Invitation.accepted_at < limit, Invitation.withdrawn_at < limit, Invitation.expires_at < limit)
    return delete_some(Invitation, ended)


# ---- For whoever holds the link


def find(token: Secret) -> Found:
    """Return what a link leads to. Raises InvitationOver."""
    query = select(Invitation, Workspace).join(Workspace, Workspace.id == Invitation.workspace_id)
    row = db.session.execute(query.where(Invitation.digest == _digest(token), *_OPEN)).first()
    if row is None or row[0].expires_at <= now():
        raise InvitationOver
    return Found(row[0], row[1])


def accept(token: Secret, login_session: LoginSession, *, actor: Actor) -> Workspace:
    """Make the person who is signed in a member, and let their browser look at the workspace.

    Who is a member already keeps their role. Raises InvitationOver, and PermissionRefused for another address.
    """
    with transaction():
        found = _taken(token)
        user = db.session.get_one(User, login_session.user_id, populate_existing=True)
        if user.email != found.invitation.email:
            raise PermissionRefused("This invitation was sent to another address.")
        _join(found, user, actor)
        workspaces.look_at(login_session, found.workspace.id)
        return found.workspace


def accept_with_new_account(token: Secret, password: Secret, *, address: str | None, client: str | None) -> Secret:
    """Make an account with the address of the invitation and a member of it; return the token of its first session.

    The account has no workspace of its own. Raises InvitationOver, and InvalidInput as a sign-up does.
    """
    email = find(token).invitation.email
    wish = accounts.prepared(email, password)
    with transaction():
        found = _taken(token)
        if found.invitation.email != wish.email:
            raise InvitationOver
        user = accounts.add_prepared(wish, time_zone=found.workspace.time_zone)
        actor = Actor(kind="user", name=user.email, id=user.id, address=address, client=client)
        _join(found, user, actor)
        return sessions.begin(user, methods=["password"], address=address, client=client)


# ---- Parts of the above


def _checked(email: str, role: str) -> str:
    faults = {}
    address = accounts.stored_form(email)
    if not address:
        faults["email"] = "Enter an e-mail address"
    elif len(address) > mail.RECIPIENT_LENGTH or not is_address(address) or "." not in address.rpartition("@")[2]:
        faults["email"] = "Enter an e-mail address like name@example.com"
    if role not in {one.value for one in Role}:
        faults["role"] = "Choose a role"
    if faults:
        raise InvalidInput(faults)
    return address


def _require_room(workspace: Workspace, address: str) -> None:
    """Refuse an address that needs no invitation, and one too many. One that has expired makes room for its like."""
    joined = select(Membership.user_id).join(User, User.id == Membership.user_id)
    if db.session.scalar(joined.where(Membership.workspace_id == workspace.id, User.email == address)):
        raise InvalidInput({"email": "This person is a member already"})
    for invitation in pending(workspace):
        if invitation.email == address and invitation.expires_at <= now():
            invitation.withdrawn_at = now()
        elif invitation.email == address:
            raise InvalidInput({"email": "This address is invited already. Send the invitation again from the list"})
    db.session.flush()
    count = select(func.count()).select_from(Invitation).where(Invitation.workspace_id == workspace.id, *_OPEN)
    if (db.session.scalar(count) or 0) >= MOST_PENDING:
        raise InvalidInput({"email": f"{MOST_PENDING} invitations are pending. Withdraw some first"})


def _send(workspace: Workspace, invitation: Invitation) -> None:
    token = secrets.token_urlsafe(32)
    invitation.digest = _digest(Secret(token))
    invitation.expires_at = now() + LIFETIME
    mail.queue(
        invitation.email,
        f"Invitation to {workspace.name}",
        "invitation",
        workspace.id,
        workspace_name=workspace.name,
        inviter=invitation.invited_by_name,
        role=invitation.role,
        token=token,
        expires_at=invitation.expires_at,
    )


def _taken(token: Secret) -> Found:
    """Return what a link leads to with no other act on it at the same time. Raises InvitationOver."""
    workspace_id = find(token).workspace.id
    members.alone_with(workspace_id)
    db.session.expire_all()
    return find(token)


def _join(found: Found, user: User, actor: Actor) -> None:
    invitation, workspace = found.invitation, found.workspace
    invitation.accepted_at = now()
    if user.email_confirmed_at is None:
        user.email_confirmed_at = now()
    if workspaces.find_membership(user.id, workspace.id) is None:
        invited_by = {"invited_by": invitation.invited_by_name}
        workspaces.add_member(workspace, user, Role(invitation.role), actor=actor, details=invited_by)
    db.session.flush()


def _told(inviter: User) -> str:
    """Return who invites; the address is always with the name, which anybody can choose."""
    return (f"{inviter.name} ({inviter.email})" if inviter.name else inviter.email)[:_INVITER_LENGTH]


def _record(workspace: Workspace, actor: Actor, action: str, invitation: Invitation) -> None:
    details = {"role": invitation.role}
    audit.record(workspace.id, actor, action, object_id=invitation.id, object_name=invitation.email, details=details)


def _digest(token: Secret) -> bytes:
    return parts().invitation_digests.digest(token.reveal())
