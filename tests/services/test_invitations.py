"""Invitations: single use, bound to an address, for seven days."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import pytest
from flask import Flask

from extensions import db
from models import AuditEvent, Invitation, LoginSession, MailMessage, User
from models.base import now, transaction
from services import invitations, members, sessions, workspaces
from services.errors import AlreadyDone, InvalidInput, NotFound, PermissionRefused
from services.invitations import InvitationOver
from services.permissions import Role
from services.secret import Secret
from tests.people import PASSWORD, Person, join, make_person

LINK = re.compile(r"/invitations/([0-9A-Za-z_-]{43})")
GUEST = "guest@else.example"


def invite(host: Person, email: str = GUEST, role: str = "developer", by: Person | None = None, **more: str) -> str:
    """Invite somebody and return the token of the link."""
    by = by or host
    inviter = db.session.get_one(User, by.user_id)
    invitations.invite(host.workspace, email, role, inviter=inviter, actor=by.actor, **more)
    return token_to(email.lower())


def token_to(email: str) -> str:
    """Return the token in the latest mail to an address; both forms of the mail have the same."""
    db.session.rollback()
    query = db.session.query(MailMessage).filter_by(recipient=email).order_by(MailMessage.created_at.desc())
    letter = query.first()
    assert letter is not None
    (token,) = set(LINK.findall(letter.text)) & set(LINK.findall(letter.html))
    return token


def signed_in(person: Person) -> LoginSession:
    user = db.session.get_one(User, person.user_id)
    found = sessions.find(sessions.begin(user, methods=["password"], address=None, client=None))
    assert found is not None
    return found


def actions(host: Person) -> list[str]:
    query = db.session.query(AuditEvent).filter_by(workspace_id=host.workspace_id).order_by(AuditEvent.number)
    return [event.action for event in query]


def test_an_invitation_makes_its_addressee_a_member_once(app: Flask, alice: Person) -> None:
    token = invite(alice, "Dan@Else.example")
    row = db.session.query(Invitation).one()
    assert (row.email, row.role, row.invited_by_name) == ("dan@else.example", "developer", alice.email)
    assert timedelta(days=7) - (row.expires_at - now()) < timedelta(minutes=1)
    assert token.encode() not in row.digest
    dan, eve = make_person("dan@else.example"), make_person("eve@else.example")
    with pytest.raises(PermissionRefused):
        invitations.accept(Secret(token), signed_in(eve), actor=eve.actor)
    login_session = signed_in(dan)
    invitations.accept(Secret(token), login_session, actor=dan.actor)
    db.session.rollback()
    membership = workspaces.find_membership(dan.user_id, alice.workspace_id)
    assert membership is not None
    assert membership.role == "developer"
    assert login_session.workspace_id == alice.workspace_id
    assert db.session.get_one(User, dan.user_id).email_confirmed_at is not None
    with pytest.raises(InvitationOver):
        invitations.accept(Secret(token), login_session, actor=dan.actor)
    assert actions(alice)[-2:] == ["invitation:create", "member:add"]


def test_a_link_that_is_over_says_nothing_of_why(app: Flask, alice: Person) -> None:
    first = invite(alice)
    invitation_id = db.session.query(Invitation).one().id
    invitations.resend(alice.workspace, invitation_id, actor=alice.actor)
    second = token_to(GUEST)
    assert second != first
    tokens = {"replaced": first, "never one": "x" * 43, "no token": "schlüssel"}
    tokens["withdrawn"] = second
    assert invitations.find(Secret(second)).workspace.id == alice.workspace_id
    invitations.withdraw(alice.workspace, invitation_id, actor=alice.actor)
    tokens["expired"] = invite(alice, "late@else.example")
    with transaction() as session:
        session.query(Invitation).filter_by(email="late@else.example").update({Invitation.expires_at: now()})
    for why, token in tokens.items():
        with pytest.raises(InvitationOver, match="no longer valid"):
            invitations.find(Secret(token))
        assert why
    for act in (invitations.resend, invitations.withdraw):
        with pytest.raises(NotFound):
            act(alice.workspace, invitation_id, actor=alice.actor)
    # One that has expired makes room for another to the same address.
    assert invitations.find(Secret(invite(alice, "late@else.example")))
    assert [one.email for one in invitations.pending(alice.workspace)] == ["late@else.example"]
    assert actions(alice).count("invitation:resend") == 1


def test_who_may_invite_whom(app: Flask, alice: Person, bob: Person, charlie: Person) -> None:
    admin = make_person("admin@northwind.example")
    join(admin, alice, Role.ADMIN)
    refused = [(bob, "viewer"), (charlie, "viewer"), (admin, "owner")]
    for person, role in refused:
        with pytest.raises(PermissionRefused):
            invite(alice, role=role, by=person)
    invite(alice, "new-owner@else.example", role="owner")
    owners_invitation = db.session.query(Invitation).one().id
    with pytest.raises(PermissionRefused):
        invitations.withdraw(alice.workspace, owners_invitation, actor=admin.actor)
    for email, role, field in (
        ("", "viewer", "email"),
        ("no address", "viewer", "email"),
        ("a@b", "viewer", "email"),
        ("a@else.example\nBcc: b@else.example", "viewer", "email"),
        (f"{'a' * 250}@else.example", "viewer", "email"),
        (bob.email.upper(), "viewer", "email"),
        ("new-owner@ELSE.example", "viewer", "email"),
        (GUEST, "king", "role"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            invite(alice, email, role)
        assert list(refusal.value.fields) == [field], email
    # Whether an address has an account shows nowhere.
    invite(alice, charlie.email, "viewer")
    invite(alice, "unknown@else.example", "viewer")
    assert [one.role for one in invitations.pending(alice.workspace)] == ["viewer", "viewer", "owner"]


def test_a_workspace_has_only_so_many_invitations_open(app: Flask, alice: Person) -> None:
    for number in range(invitations.MOST_PENDING):
        invite(alice, f"guest{number}@else.example", "viewer")
    with pytest.raises(InvalidInput, match="Withdraw some first"):
        invite(alice)


def test_invited_twice_at_once_is_invited_once(app: Flask, alice: Person) -> None:
    start, outcomes = threading.Barrier(2), []

    def send() -> None:
        with app.app_context():
            inviter, workspace = db.session.get_one(User, alice.user_id), alice.workspace
            start.wait()
            try:
                invitations.invite(
                    workspace, GUEST, "viewer", inviter=inviter, actor=alice.actor, one_time_number="one form"
                )
                outcomes.append("sent")
            except (AlreadyDone, InvalidInput) as error:
                outcomes.append(type(error).__name__)
            finally:
                db.session.remove()

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["AlreadyDone", "sent"]
    assert len(invitations.pending(alice.workspace)) == 1
    assert db.session.query(MailMessage).filter_by(recipient=GUEST).count() == 1


def test_an_account_made_by_the_link_is_confirmed_and_belongs_here_alone(app: Flask, alice: Person) -> None:
    with transaction():
        alice.workspace.time_zone = "Asia/Kathmandu"
    token = invite(alice)
    for password in ("short", GUEST, "password1234"):
        with pytest.raises(InvalidInput):
            invitations.accept_with_new_account(Secret(token), Secret(password), address=None, client=None)
    session_token = invitations.accept_with_new_account(Secret(token), Secret(PASSWORD), address=None, client=None)
    login_session = sessions.find(session_token)
    assert login_session is not None
    user = login_session.user
    assert (user.email, user.time_zone, user.is_operator) == (GUEST, "Asia/Kathmandu", False)
    assert user.email_confirmed_at is not None
    assert login_session.workspace_id == alice.workspace_id
    assert [one.workspace_id for one in workspaces.memberships_of(user)] == [alice.workspace_id]
    with pytest.raises(InvitationOver):
        invitations.accept_with_new_account(Secret(token), Secret(PASSWORD), address=None, client=None)
    # An address that has an account makes no second one.
    make_person("known@else.example")
    token = invite(alice, "known@else.example")
    with pytest.raises(InvalidInput, match="could not be created"):
        invitations.accept_with_new_account(Secret(token), Secret(PASSWORD), address=None, client=None)
    assert invitations.find(Secret(token))


def test_invitations_stay_when_who_sent_them_goes(app: Flask, alice: Person) -> None:
    admin = make_person("admin@northwind.example")
    join(admin, alice, Role.ADMIN)
    token = invite(alice, by=admin)
    members.remove(alice.workspace, admin.user_id, actor=alice.actor, heir_id=None)
    (pending,) = invitations.pending(alice.workspace)
    assert pending.invited_by_name == admin.email
    assert invitations.find(Secret(token))
    with transaction() as session:
        session.query(Invitation).update({Invitation.expires_at: now() - timedelta(days=31)})
    assert invitations.forget_old() is False
    assert db.session.query(Invitation).count() == 0
