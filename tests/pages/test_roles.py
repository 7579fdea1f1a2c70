"""What each role sees and may do on the pages."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask

from extensions import db
from models import ApiKey, Membership
from models.base import transaction
from services import keys
from services.keys import Minted
from tests.pages.visitor import Visitor
from tests.people import Person

Mint = Callable[..., Minted]


def test_a_viewer_sees_the_list_without_acts(viewer: Visitor, mint: Mint) -> None:
    minted = mint("Production Server")
    page = viewer.open("/keys")
    assert "Production Server" in page.text
    assert "/keys/new" not in page.links
    assert f"/keys/{minted.key.id}/delete" not in page.links
    assert "Managed by" not in page.text
    assert f"/keys/{minted.key.id}/delete" not in viewer.open(f"/keys/{minted.key.id}").links


def test_a_viewer_is_told_whom_to_ask(viewer: Visitor, alice: Person, mint: Mint) -> None:
    minted = mint("Production Server")
    for path in ("/keys/new", f"/keys/{minted.key.id}/delete"):
        page = viewer.open(path)
        assert viewer.status == 403
        assert f"You need the developer role for this. Ask {alice.email} (owner)." in page.text
    viewer.post_by_hand("/keys/new", name="forged", kind="secret", environment="live", preset="full", expires="90")
    assert viewer.status == 403
    viewer.post_by_hand(f"/keys/{minted.key.id}/delete")
    assert viewer.status == 403
    assert [key.name for key in keys.living(alice.workspace)] == ["Production Server"]


def test_a_developer_manages_own_keys_only(developer: Visitor, dora: Person, alice: Person, mint: Mint) -> None:
    hers = mint("hers")
    developer.submit("/keys/new", name="mine")
    mine = next(key for key in keys.living(alice.workspace) if key.name == "mine")
    page = developer.open("/keys")
    assert f"/keys/{mine.id}/delete" in page.links
    assert f"/keys/{hers.key.id}/delete" not in page.links
    assert "Managed by alice" in page.text

    page = developer.open(f"/keys/{hers.key.id}/delete")
    assert developer.status == 403
    assert f"This key is managed by {alice.email}." in page.text
    developer.post_by_hand(f"/keys/{hers.key.id}/delete")
    assert developer.status == 403
    assert db.session.get_one(ApiKey, hers.key.id).deleted_at is None
    developer.submit(f"/keys/{mine.id}/delete")
    assert developer.path == f"/keys/{mine.id}/deleted"


def test_a_developer_makes_no_key_that_may_do_more_than_a_developer(
    developer: Visitor, owner: Visitor, alice: Person
) -> None:
    """Such a key would rotate everybody's keys, and so show their secrets."""
    page = developer.open("/keys/new")
    for words in ("keys:write", "providers:write", "members:read", "audit:read", "webhooks:manage", "Full access"):
        assert words not in page.text
        assert words in owner.open("/keys/new").text
    assert "usage:read" in page.text
    wish = {"kind": "secret", "environment": "live", "expires": "90", "name": "forged"}
    for more in ({"preset": "full"}, {"preset": "admin"}, {"preset": "one_by_one", "scopes": ["keys:write"]}):
        page = developer.post_by_hand("/keys/new", **wish, **more)
        assert developer.status == 422
        assert "Your role cannot give a key" in page.text
    assert keys.living(alice.workspace) == []
    developer.submit("/keys/new", name="usual")
    developer.submit("/keys/new", name="by hand", preset="one_by_one", scopes=["chat:write", "keys:read"])
    owner.submit("/keys/new", name="everything", preset="full")
    assert {key.name for key in keys.living(alice.workspace)} == {"usual", "by hand", "everything"}


def test_who_may_no_longer_make_a_key_like_it_can_only_end_it(developer: Visitor, dora: Person, alice: Person) -> None:
    """A former admin must not win back their rights by a new secret of an old key."""
    kinds = {"kind": "secret", "environment": "live", "preset": "full"}
    key = keys.mint(alice.workspace, actor=dora.actor, name="From before", **kinds).key
    for path, fields in (
        (f"/keys/{key.id}/rotate", {"overlap": "now"}),
        (f"/keys/{key.id}/edit", {"name": "Mine", "expires": "never"}),
        (f"/keys/{key.id}/enable", {}),
    ):
        developer.post_by_hand(path, **fields)
        assert developer.status == 403, path
    assert "may do more than your role" in developer.open(f"/keys/{key.id}/rotate").text
    developer.submit(f"/keys/{key.id}/disable")
    assert keys.get(alice.workspace, key.id).disabled_at is not None


def test_an_owner_deletes_a_developers_key(developer: Visitor, alice: Person, owner: Visitor) -> None:
    developer.submit("/keys/new", name="made by dora")
    key = keys.living(alice.workspace)[0]
    owner.submit(f"/keys/{key.id}/delete")
    assert owner.path == f"/keys/{key.id}/deleted"


def test_who_has_left_a_workspace_sees_it_no_more(viewer: Visitor, alice: Person, bob: Person, mint: Mint) -> None:
    minted = mint("Production Server")
    with transaction() as session:
        session.delete(session.get_one(Membership, (alice.workspace_id, bob.user_id)))
    page = viewer.open("/keys")
    assert viewer.path == "/workspaces"
    assert "Production Server" not in page.text
    viewer.open(f"/keys/{minted.key.id}")
    assert viewer.path == "/workspaces"
    viewer.submit("/workspaces", button=("workspace", bob.workspace_id))
    assert viewer.path == "/overview"


def test_only_workspaces_of_ones_own_can_be_chosen(owner: Visitor, charlie: Person) -> None:
    for workspace in (charlie.workspace_id, "ws_doesnotexist", ""):
        owner.post_by_hand("/workspaces", workspace=workspace)
        assert owner.status == 404
    assert owner.open("/overview").first("title") == "Overview · alice · ARKA"


def test_the_switcher_lists_what_one_belongs_to(app: Flask, alice: Person, bob: Person) -> None:
    visitor = Visitor(app).sign_in(bob)
    page = visitor.open("/workspaces")
    for words in ("bob Starter You are an owner", "You are here", "alice Agency You are a viewer"):
        assert words in page.text
    page = visitor.submit("/workspaces", button=("workspace", alice.workspace_id))
    assert "You are now in alice." in page.text
    assert page.first("title") == "Overview · alice · ARKA"


def test_who_belongs_nowhere_gets_a_page_that_says_so(app: Flask, bob: Person, alice: Person) -> None:
    visitor = Visitor(app).sign_in(bob)
    with transaction() as session:
        for membership in session.query(Membership).filter_by(user_id=bob.user_id):
            session.delete(membership)
    page = visitor.open("/overview")
    assert visitor.path == "/workspaces"
    assert "You belong to no workspace" in page.text
