"""Restrictions and their form, changes of a key, the filter of the list, custom scopes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask

from extensions import db
from models import ApiKey, CustomScope
from models.base import now, transaction
from services import custom_scopes, keys
from services.keys import Minted
from services.permissions import Role
from tests.pages.visitor import Visitor
from tests.people import Person, join, make_person

Mint = Callable[..., Minted]

WRONG = [
    ({"networks": "203.0.113.0/24\n10.0.0.0/99"}, "networks", "“10.0.0.0/99” is not a network"),
    ({"models": "gpt 4"}, "models", "“gpt 4” is not the name of a model"),
    ({"origins": "shop.example"}, "origins", "“shop.example” is not an origin"),
    ({"requests_per_minute": "0"}, "requests_per_minute", "Give a number from 1 to"),
    ({"requests_per_minute": "many"}, "requests_per_minute", "Give a number from 1 to"),
    ({"requests_per_minute": "1001"}, "requests_per_minute", "Give a number from 1 to the plan's 1,000"),
]


def fresh(key_id: str) -> ApiKey:
    db.session.expire_all()
    return db.session.get_one(ApiKey, key_id)


# ---- restrictions of a new key


def test_a_key_is_made_with_restrictions_and_shows_them(owner: Visitor, alice: Person) -> None:
    owner.submit(
        "/keys/new",
        name="widget",
        kind="publishable",
        preset="read_only",
        networks=" 203.0.113.0/24 \r\n\r\n2001:db8::/32",
        models="gpt-4o",
        origins="https://Shop.example/",
        requests_per_minute="1,000",
    )
    key = keys.living(alice.workspace)[0]
    assert key.allowed_networks == ["203.0.113.0/24", "2001:db8::/32"]
    assert key.allowed_models == ["gpt-4o"]
    assert key.allowed_origins == ["https://shop.example"]
    assert key.requests_per_minute == 1000
    text = owner.open(f"/keys/{key.id}").text
    for words in ("Networks 203.0.113.0/24, 2001:db8::/32", "Models gpt-4o", "https://shop.example", "1,000"):
        assert words in text


@pytest.mark.parametrize(("values", "field", "sentence"), WRONG)
def test_a_wrong_restriction_is_told_at_its_field(
    owner: Visitor, alice: Person, values: dict[str, str], field: str, sentence: str
) -> None:
    page = owner.submit("/keys/new", name="", kind="publishable", preset="read_only", **values)
    assert owner.status == 422
    assert page.text.count(sentence) == 2
    assert page.text.count("Enter a name for the key") == 2
    assert f"#{field}" in page.links
    assert '<details class="disc" open>' in page.source
    kept = dict(page.main_form.fields)
    assert kept[field].split() == values[field].split()
    assert keys.living(alice.workspace) == []


def test_origins_are_for_publishable_keys(owner: Visitor, alice: Person) -> None:
    page = owner.submit("/keys/new", name="server", origins="https://shop.example")
    assert owner.status == 422
    assert page.text.count("Origins are for publishable keys") == 2
    assert keys.living(alice.workspace) == []


# ---- edit


def test_name_expiry_and_restrictions_can_be_changed(owner: Visitor, mint: Mint) -> None:
    minted = mint("old name", expires_at=now() + timedelta(days=2))
    page = owner.submit(f"/keys/{minted.key.id}/edit", name="new name", expires="30", networks="192.0.2.1")
    assert owner.path == f"/keys/{minted.key.id}"
    assert "Key “new name” is saved." in page.text
    key = fresh(minted.key.id)
    assert (key.name, key.allowed_networks) == ("new name", ["192.0.2.1/32"])
    assert key.expires_at is not None
    assert abs(key.expires_at - now() - timedelta(days=30)) < timedelta(minutes=1)
    owner.submit(f"/keys/{minted.key.id}/edit", networks="", expires="never")
    key = fresh(minted.key.id)
    assert (key.name, key.allowed_networks, key.expires_at) == ("new name", [], None)


def test_the_form_holds_what_is_set_and_saving_it_changes_nothing(owner: Visitor, mint: Mint) -> None:
    minted = mint(expires_at=now() + timedelta(days=2))
    with transaction():
        minted.key.allowed_models = ["gpt-4o", "o3"]
        minted.key.requests_per_minute = 60
    before = fresh(minted.key.id).expires_at
    page = owner.open(f"/keys/{minted.key.id}/edit")
    assert dict(page.main_form.fields)["models"].split() == ["gpt-4o", "o3"]
    owner.send(page)
    key = fresh(minted.key.id)
    assert (key.allowed_models, key.requests_per_minute, key.expires_at) == (["gpt-4o", "o3"], 60, before)


def test_an_expired_key_gets_a_new_expiry(owner: Visitor, mint: Mint) -> None:
    minted = mint("Partner demo")
    with transaction():
        minted.key.expires_at = now() - timedelta(days=1)
    page = owner.open("/keys")
    assert "Set expiry Partner demo" in page.text
    assert "Rotate Partner demo" not in page.text
    assert "Expired" in owner.open(f"/keys/{minted.key.id}").text
    owner.submit(f"/keys/{minted.key.id}/edit", expires="on_a_date", date="2099-02-18", time="14:05")
    assert fresh(minted.key.id).status() == "active"


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        *[case for case in WRONG if case[1] != "origins"],
        ({"name": " "}, "name", "Enter a name for the key"),
        ({"name": "taken"}, "name", "Another key has this name"),
        ({"expires": "on_a_date", "date": "x"}, "date", "Choose a date"),
    ],
)
def test_what_is_wrong_with_a_change_is_told(
    owner: Visitor, mint: Mint, values: dict[str, str], field: str, sentence: str
) -> None:
    mint("taken")
    minted = mint("mine")
    page = owner.submit(f"/keys/{minted.key.id}/edit", **values)
    assert owner.status == 422
    assert page.text.count(sentence) == 2
    assert f"#{field}" in page.links
    assert fresh(minted.key.id).name == "mine"


# ---- the filter


def test_the_list_is_filtered_by_name_end_and_status(owner: Visitor, alice: Person, mint: Mint) -> None:
    first, second = mint("Production Server"), mint("Billing sync")
    keys.disable(alice.workspace, second.key.id, actor=alice.actor)
    last = first.key.secrets[0].last_characters
    for query, found in (
        ("q=server", ["Production Server"]),
        (f"q={last}", ["Production Server"]),
        ("status=disabled", ["Billing sync"]),
        ("status=active&q=sync", []),
        ("status=nonsense", ["Production Server", "Billing sync"]),
    ):
        page = owner.open(f"/keys?{query}")
        names = [name for name in ("Production Server", "Billing sync") if f"Delete {name}" in page.text]
        assert names == found, query
    page = owner.open("/keys?q=nothing")
    assert "No keys match" in page.text
    assert "Clear the filter" in page.text
    assert "No API keys yet" not in page.text


def test_a_whole_key_is_neither_searched_nor_echoed(owner: Visitor, mint: Mint) -> None:
    secret = mint().secret.reveal()
    for typed in (secret, f"Bearer {secret}", f"{secret}x"):
        page = owner.request("GET", "/keys", query_string={"q": typed})
        assert page.request.query_string == b"whole_key=1"
        assert "That was a whole key." in page.text
        assert secret not in page.text


def test_pages_keep_the_filter(owner: Visitor, mint: Mint) -> None:
    for number in range(51):
        mint(f"key {number:02}")
    page = owner.open("/keys?q=key&status=active")
    assert any("page=2" in link and "q=key" in link and "status=active" in link for link in page.links)


# ---- custom scopes


def test_a_scope_is_defined_and_can_be_given_to_keys(owner: Visitor, alice: Person) -> None:
    assert "No custom scopes yet" in owner.open("/keys/scopes").text
    page = owner.submit("/keys/scopes", name="emails:send", meaning="Send e-mails.")
    assert "Scope emails:send is defined." in page.text
    assert "Emails emails:send Send e-mails." in owner.open("/keys/new").text
    owner.submit("/keys/new", name="mailer", preset="one_by_one", scopes=["emails:send"])
    key = keys.living(alice.workspace)[0]
    assert key.scopes == ["emails:send"]
    assert "emails:send Send e-mails." in owner.open(f"/keys/{key.id}").text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "", "meaning": "x"}, "Enter a name such as emails:send"),
        ({"name": "Emails", "meaning": "x"}, "Write it as resource:action"),
        ({"name": "keys:burn", "meaning": "x"}, "“keys” is a resource of the portal"),
        ({"name": "emails:send", "meaning": ""}, "Say in a sentence what it allows"),
    ],
)
def test_what_is_wrong_with_a_scope_is_told(owner: Visitor, values: dict[str, str], sentence: str) -> None:
    page = owner.submit("/keys/scopes", **values)
    assert owner.status == 422
    assert page.text.count(sentence) == 2
    assert db.session.query(CustomScope).count() == 0


def test_a_scope_in_use_stays(owner: Visitor, alice: Person, mint: Mint) -> None:
    scope = custom_scopes.define(alice.workspace, "emails:send", "Send e-mails.", actor=alice.actor)
    minted = mint("mailer", scopes=["emails:send"])
    page = owner.submit(f"/keys/scopes/{scope.id}/remove")
    assert owner.status == 422
    assert "emails:send is used by “mailer”." in page.text
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    page = owner.submit(f"/keys/scopes/{scope.id}/remove")
    assert "Scope emails:send is removed." in page.text
    assert "No longer defined in this workspace." in owner.open(f"/keys/{minted.key.id}").text


def test_who_may_change_scopes(app: Flask, alice: Person, viewer: Visitor, developer: Visitor, charlie: Person) -> None:
    scope = custom_scopes.define(alice.workspace, "emails:send", "Send e-mails.", actor=alice.actor)
    for visitor in (viewer, developer):
        page = visitor.open("/keys/scopes")
        assert "emails:send" in page.text
        assert "Define a scope" not in page.text
        assert f"/keys/scopes/{scope.id}/remove" not in page.links
        visitor.post_by_hand("/keys/scopes", name="tasks:write", meaning="x")
        assert visitor.status == 403
        visitor.post_by_hand(f"/keys/scopes/{scope.id}/remove")
        assert visitor.status == 403
    stranger = Visitor(app).sign_in(charlie)
    assert "No custom scopes yet" in stranger.open("/keys/scopes").text
    stranger.open(f"/keys/scopes/{scope.id}/remove")
    assert stranger.status == 404
    stranger.post_by_hand(f"/keys/scopes/{scope.id}/remove")
    assert stranger.status == 404
    admin = make_person("frank@northwind.example")
    join(admin, alice, Role.ADMIN)
    Visitor(app).sign_in(admin).look_at(alice).submit("/keys/scopes", name="tasks:write", meaning="Write tasks.")
    assert [one.name for one in custom_scopes.of_workspace(alice.workspace)] == ["emails:send", "tasks:write"]
