"""Team & roles, invitations, workspaces and the profile, as people meet them. The same for every database."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from extensions import db
from models import LoginSession, MailMessage, Membership, User, Workspace
from models.base import transaction
from services import keys
from services.permissions import Role
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person, join, make_person

GUEST = "guest@else.example"
EVERY_NOTICE = ["key_dates", "key_addresses", "rate_limit", "spending", "providers", "webhooks"]


@pytest.fixture
def database_url(one_database_url: str) -> str:
    return one_database_url


def link_to(email: str) -> str:
    db.session.rollback()
    letter = db.session.query(MailMessage).filter_by(recipient=email).order_by(MailMessage.created_at.desc()).first()
    assert letter is not None
    found = re.search(r"/invitations/[0-9A-Za-z_-]{43}", letter.text)
    assert found is not None
    return found[0]


def test_an_owner_manages_the_team(owner: Visitor, alice: Person, bob: Person, viewer: Visitor) -> None:
    page = owner.open("/team")
    assert "alice@northwind.example You" in page.text
    assert "Pending invitations None." in page.text
    role = f"/team/members/{bob.user_id}/role"
    page = owner.post_by_hand(role, role="developer")
    assert "bob@northwind.example is now a developer." in page.text
    page = owner.post_by_hand(role, role="king")
    assert (owner.status, "Choose a role" in page.text) == (422, True)
    page = owner.post_by_hand(f"/team/members/{alice.user_id}/role", role="viewer")
    assert (owner.status, "Make someone else an owner first." in page.text) == (422, True)
    assert "You are the only owner." in owner.open("/workspace/leave").text
    # Who may not manage sees the same list without acts.
    page = viewer.open("/team")
    assert "bob@northwind.example You" in page.text
    assert not [link for link in page.links if "/remove" in link or link == "/team/invite"]
    assert [form.action for form in page.forms if "/team/" in form.action] == []
    assert "Yes" in page.text
    viewer.submit("/keys/new", name="Bobs key")
    page = owner.open(f"/team/members/{bob.user_id}/remove")
    assert "Bobs key Active never used" in page.text
    page = owner.send(page)
    assert "bob@northwind.example is no longer a member." in page.text
    (key,) = keys.living(alice.workspace)
    assert key.created_by_id == alice.user_id
    assert viewer.open("/overview").first("title").startswith("Overview · bob")
    owner.open(f"/team/members/{bob.user_id}/remove")
    assert owner.status == 404


def test_an_invitation_from_the_form_to_the_first_page(app: Flask, owner: Visitor, alice: Person) -> None:
    page = owner.submit("/team/invite", email=GUEST, role="developer")
    assert f"An invitation is on its way to {GUEST}." in page.text
    link = link_to(GUEST)
    page = owner.open(link)
    assert "This invitation is for another address" in page.text
    assert GUEST not in page.text
    stranger = Visitor(app)
    page = stranger.open(link)
    for words in ("Join alice", "Developer", alice.email, "Sign in", "Create an account"):
        assert words in page.text
    stranger.submit(f"{link}/account", password="short")
    assert stranger.status == 422
    page = stranger.submit(f"{link}/account", password=PASSWORD)
    assert stranger.path == "/overview"
    assert "You are now a member of alice." in page.text
    assert "no longer valid" in stranger.open(link).text
    assert stranger.status == 410
    assert GUEST in owner.open("/team").text
    # Somebody who has an account signs in and comes back.
    dan = make_person("dan@else.example")
    owner.submit("/team/invite", email=dan.email, role="viewer")
    link = link_to(dan.email)
    visitor = Visitor(app)
    sign_in = next(one for one in visitor.open(link).links if one.startswith("/sign-in"))
    page = visitor.submit(sign_in, email=dan.email, password=PASSWORD)
    assert visitor.path == link
    page = visitor.send(page)
    assert visitor.path == "/overview"
    assert page.first("title") == "Overview · alice · ARKA"
    # Who is signed in with another address signs out and comes back.
    owner.submit("/team/invite", email="eve@else.example", role="viewer")
    link = link_to("eve@else.example")
    out = next(form for form in visitor.open(link).forms if form.action == f"{link}/sign-out")
    page = visitor.post_by_hand(out.action)
    assert visitor.path == link
    assert "Create an account" in page.text


def test_pending_invitations_are_sent_again_and_withdrawn(owner: Visitor, visitor: Visitor, alice: Person) -> None:
    owner.submit("/team/invite", email=GUEST, role="developer")
    first = link_to(GUEST)
    page = owner.submit("/team/invite", email=GUEST, role="developer")
    assert (owner.status, "This address is invited already" in page.text) == (422, True)
    acts = [form.action for form in owner.open("/team").forms if "/invited/" in form.action]
    resend, withdraw = acts
    page = owner.post_by_hand(resend)
    assert "The one before no longer works." in page.text
    second = link_to(GUEST)
    assert [visitor.request("GET", link).status_code for link in (first, second)] == [410, 200]
    page = owner.post_by_hand(withdraw)
    assert f"The invitation of {GUEST} is withdrawn." in page.text
    assert visitor.request("GET", second).status_code == 410
    # Nobody is flooded with our mail.
    for _ in range(12):
        owner.post_by_hand("/team/invite", email=GUEST, role="developer")
    assert owner.status == 429


def test_a_link_is_in_no_log(app: Flask, owner: Visitor, capsys: pytest.CaptureFixture[str]) -> None:
    owner.submit("/team/invite", email=GUEST, role="developer")
    link = link_to(GUEST)
    visitor = Visitor(app)
    visitor.open(link)
    visitor.open(f"{link}/account")
    visitor.open(f"/sign-in?next={link}")
    told = capsys.readouterr()
    assert "/invitations/[hidden]" in told.err + told.out
    assert link.rpartition("/")[2] not in told.err + told.out


def test_a_workspace_from_its_beginning_to_its_end(app: Flask, owner: Visitor, alice: Person, viewer: Visitor) -> None:
    page = owner.submit("/workspaces/new", name="Second")
    assert page.first("title") == "Overview · Second · ARKA"
    page = owner.submit("/workspace", name="Lab", time_zone="Europe/Berlin")
    assert "The workspace is saved." in page.text
    assert page.first("title") == "Workspace · Lab · ARKA"
    page = owner.submit("/workspace", name="")
    assert (owner.status, "Enter a name for the workspace" in page.text) == (422, True)
    page = owner.submit("/workspace/delete", name="Second")
    assert (owner.status, "Type “Lab” exactly" in page.text) == (422, True)
    page = owner.submit("/workspace/delete", name="Lab")
    assert "Lab is deleted." in page.text
    assert db.session.query(Workspace).filter_by(name="Lab").count() == 0
    assert owner.open("/overview").first("title") == "Overview · alice · ARKA"
    # A viewer sees it without acts and may leave.
    page = viewer.open("/workspace")
    assert "Owners and admins can change name and time zone." in page.text
    page = viewer.submit("/workspace/leave")
    assert "You have left alice." in page.text
    # With the last workspace gone the account stays, and says so.
    owner.submit("/workspace/delete", name="alice")
    assert "You belong to no workspace" in owner.open("/overview").text
    owner.open("/")
    assert owner.status == 200
    again = Visitor(app).sign_in(alice)
    assert "You belong to no workspace" in again.open("/overview").text
    assert again.submit("/workspaces/new", name="Anew").first("title") == "Overview · Anew · ARKA"


def test_a_profile_says_how_one_is_called_and_which_zone_counts(
    app: Flask, owner: Visitor, alice: Person, viewer: Visitor
) -> None:
    page = owner.submit("/account/profile", name="Mira Okafor", time_zone="Asia/Kolkata", theme="dark")
    assert "Your profile is saved." in page.text
    assert ("html", "data-bs-theme", "dark") in page.attributes
    assert "Times are in Asia/Kolkata" in page.text
    assert "Ask Mira Okafor (owner)." in viewer.open("/keys/new").text
    assert "Times are in UTC" in viewer.open("/team").text
    page = owner.open("/keys/new")
    assert "Time, Asia/Kolkata" in page.text
    owner.submit("/keys/new", name="Until ten", expires="on_a_date", date="2030-01-02", time="10:00")
    (key,) = keys.living(alice.workspace)
    assert f"{key.expires_at:%Y-%m-%d %H:%M}" == "2030-01-02 04:30"
    page = owner.open(f"/keys/{key.id}")
    assert ("time", "datetime", "2030-01-02T04:30:00Z") in page.attributes
    assert "10:00:00 IST" in page.source
    for path in ("/usage", "/usage?range=24h", "/overview", "/keys", "/usage/limits"):
        owner.open(path)
        assert owner.status == 200
    for values in ({"time_zone": "Mars/Olympus"}, {"theme": "pink"}, {"name": "see www.else.example"}):
        owner.submit("/account/profile", **values)
        assert owner.status == 422
    page = owner.submit("/account/profile", name="", time_zone="UTC", theme="system")
    assert not [value for tag, name, value in page.attributes if name == "data-bs-theme"]
    # A zone that this machine does not know (any more) counts as UTC.
    with transaction() as session:
        session.query(User).update({User.time_zone: "Mars/Olympus"})
    assert "Times are in UTC" in owner.open("/overview").text


def test_an_admin_sees_no_way_to_an_owner(app: Flask, alice: Person) -> None:
    admin = make_person("admin@northwind.example")
    join(admin, alice, Role.ADMIN)
    visitor = Visitor(app).sign_in(admin).look_at(alice)
    page = visitor.open("/team")
    assert f"/team/members/{alice.user_id}/role" not in [form.action for form in page.forms]
    for path in (f"/team/members/{alice.user_id}/remove", f"/team/members/{alice.user_id}/role"):
        visitor.post_by_hand(path, role="viewer")
        assert visitor.status == 403
    visitor.post_by_hand(f"/team/members/{admin.user_id}/role", role="owner")
    assert visitor.status == 403
    visitor.post_by_hand("/team/invite", email=GUEST, role="owner")
    assert visitor.status == 403
    assert db.session.query(Membership).filter_by(workspace_id=alice.workspace_id, role="owner").count() == 1
    assert db.session.query(LoginSession).filter_by(workspace_id=alice.workspace_id).count() == 1


def test_notices_are_switched_off_and_on_by_each_person(owner: Visitor, alice: Person, bob: Person) -> None:
    assert "/account/notices" in owner.open("/account/profile").links
    page = owner.open("/account/notices")
    assert [value for name, value in page.main_form.fields if name == "notices"] == EVERY_NOTICE
    page = owner.send(page, notices=["spending", "webhooks"])
    assert "Your notices are saved." in page.text
    assert [value for name, value in page.main_form.fields if name == "notices"] == ["spending", "webhooks"]
    owner.submit("/account/notices", notices=None)
    muted = {user.email: user.muted_notices for user in db.session.query(User)}
    assert muted == {alice.email: EVERY_NOTICE, bob.email: []}
    page = owner.post_by_hand("/account/notices", notices=["spending", "security"])
    assert (owner.status, "Choose from the list" in page.text) == (422, True)
    owner.submit("/account/notices", notices=EVERY_NOTICE)
    assert db.session.get_one(User, alice.user_id).muted_notices == []
