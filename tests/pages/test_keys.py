"""API keys: listed, made, shown once, ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from extensions import db
from models import ApiKey
from models.base import now, transaction
from services import keys
from services.actor import Actor
from services.keys import Minted
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person, bearer

Mint = Callable[..., Minted]
Use = Callable[..., None]

FULL_KEY = re.compile(r"arka_[sp]k_(test_)?[0-9A-Za-z]{32}")


def shown_key(page: Html) -> str:
    found = FULL_KEY.search(page.source)
    assert found, page.text
    return found[0]


def row_of(page: Html, name: str) -> str:
    """The words of a key's row."""
    rows = page.source.split('<tr role="row">')
    return Html(next(row for row in rows if name in row).partition("</tr>")[0]).text


# ---- the list


def test_no_keys_yet_says_what_a_key_is_for(owner: Visitor) -> None:
    page = owner.open("/keys")
    assert "No API keys yet" in page.text
    assert "A key lets a program call ARKA as this workspace." in page.text
    assert page.links.count("/keys/new") == 1


def test_a_key_is_listed_with_what_matters(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint("Production Server", scopes=["models:read"], environment="test")
    use(minted, times=3, address="203.0.113.24")
    row = row_of(owner.open("/keys"), "Production Server")
    assert minted.key.mask is not None
    assert minted.key.mask in row
    for words in ("alice, ", "Test Secret · models:read", "Active", "Just now", "203.0.113.24", " 3 ", "Delete"):
        assert words in row, f"{words!r} is not in {row!r}"
    assert not FULL_KEY.search(owner.open("/keys").source)


def test_presets_are_listed_by_name(owner: Visitor, alice: Person) -> None:
    keys.mint(alice.workspace, actor=alice.actor, name="Everything", kind="secret", environment="live", preset="full")
    assert "Secret · Full access" in row_of(owner.open("/keys"), "Everything")


def test_the_most_recently_used_key_comes_first(owner: Visitor, mint: Mint, use: Use) -> None:
    first, second = mint("first"), mint("second")
    use(second, days_ago=2)
    use(first, days_ago=1)
    mint("never")
    text = owner.open("/keys").text
    assert text.index("first") < text.index("second") < text.index("never")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"disabled_at": -2}, "Disabled Since "),
        ({"expires_at": -20}, "Expired Since "),
        ({"expires_at": 3.2}, "Active Expires "),
        ({"expires_at": 60}, "Active Expires "),
        ({}, "Active "),
    ],
)
def test_the_status_is_told_in_words(owner: Visitor, mint: Mint, change: dict[str, float], words: str) -> None:
    minted = mint("the key")
    with transaction():
        for name, days in change.items():
            setattr(minted.key, name, now() + timedelta(days=days))
    assert words in row_of(owner.open("/keys"), "the key")


def test_a_secret_of_90_days_is_marked(owner: Visitor, mint: Mint) -> None:
    minted = mint("the key")
    with transaction():
        minted.key.secrets[0].created_at = now() - timedelta(days=90)
    assert "Active 90 days old" in row_of(owner.open("/keys"), "the key")


def test_fifty_keys_a_page(owner: Visitor, mint: Mint) -> None:
    for number in range(51):
        mint(f"key {number:02}")
    first = owner.open("/keys")
    assert first.source.count("<tr ") == 51
    assert "51 keys" in first.text
    assert "Page 1 of 2" in first.text
    second = owner.open("/keys?page=2")
    assert second.source.count("<tr ") == 2
    assert "Newer" in second.text
    assert "Older" not in second.text
    for nonsense in ("0", "-1", "x", "99", "9" * 40):
        owner.open(f"/keys?page={nonsense}")
        assert owner.status == 200


def test_a_name_is_text_and_never_markup(owner: Visitor, mint: Mint) -> None:
    name = "<b onmouseover=alert(1)>\"'&amp;"
    minted = mint(name)
    for path in ("/keys", f"/keys/{minted.key.id}", f"/keys/{minted.key.id}/delete"):
        page = owner.open(path)
        assert "<b onmouseover" not in page.source
        assert name in page.text


# ---- a new key


def test_a_new_key_is_shown_once_and_works(owner: Visitor, app: Flask) -> None:
    page = owner.submit("/keys/new", name="Production Server", preset="read_write", environment="test")
    assert page.first("h1") == "Save your new key"
    assert "“Production Server” is ready. This is the only time its full value is shown." in page.text
    assert owner.answer is not None
    assert owner.answer.headers["Cache-Control"] == "no-store"
    secret = shown_key(page)
    assert page.source.count(secret) == 1
    assert "$ARKA_API_KEY" in page.text

    answer = owner.one_request("GET", "/v1/models", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 200
    assert not FULL_KEY.search(owner.open("/keys").source)


def test_the_facts_of_the_new_key_are_beside_it(owner: Visitor) -> None:
    page = owner.submit("/keys/new", name="CI", kind="publishable", preset="read_only", environment="test")
    day = now() + timedelta(days=90)
    for words in (
        "Publishable, test",
        "Read-only models:read, usage:read",
        f"{day:%a} {day.day} {day:%b %Y}",
        "1,000 a minute, shared",
        "Test key.",
    ):
        assert words in page.text


def test_sending_the_form_again_makes_no_second_key(owner: Visitor, alice: Person) -> None:
    form = owner.open("/keys/new")
    owner.send(form, name="Production Server")
    again = owner.send(form, name="Production Server")
    assert again.first("h1") == "This key was already shown"
    assert "If you did not save it" in again.text
    assert not FULL_KEY.search(again.source)
    other_name = owner.send(form, name="Another name")
    assert other_name.first("h1") == "This key was already shown"
    assert [key.name for key in keys.living(alice.workspace)] == ["Production Server"]


def test_each_opened_form_makes_its_own_key(owner: Visitor, alice: Person) -> None:
    owner.submit("/keys/new", name="one")
    owner.submit("/keys/new", name="two")
    assert len(keys.living(alice.workspace)) == 2


@pytest.mark.parametrize(
    ("choice", "days"), [({}, 90), ({"expires": "60"}, 60), ({"expires": "30"}, 30), ({"expires": "7"}, 7)]
)
def test_the_expiry_offered(owner: Visitor, alice: Person, choice: dict[str, str], days: int) -> None:
    owner.submit("/keys/new", name="key", **choice)
    expires_at = keys.living(alice.workspace)[0].expires_at
    assert expires_at is not None
    assert abs(expires_at - now() - timedelta(days=days)) < timedelta(minutes=1)


def test_never_and_a_chosen_moment(owner: Visitor, alice: Person) -> None:
    owner.submit("/keys/new", name="never", expires="never", date="2001-01-01")
    owner.submit("/keys/new", name="chosen", expires="on_a_date", date="2099-02-18", time="14:05")
    found = {key.name: key.expires_at for key in keys.living(alice.workspace)}
    assert found["never"] is None
    assert str(found["chosen"]) == "2099-02-18 14:05:00+00:00"


def test_scopes_one_by_one(owner: Visitor, alice: Person) -> None:
    owner.submit("/keys/new", name="key", preset="one_by_one", scopes=["usage:read", "chat:write"])
    key = keys.living(alice.workspace)[0]
    assert key.scopes == ["chat:write", "usage:read"]
    assert key.preset is None


def test_scopes_ticked_under_a_preset_are_ignored(owner: Visitor, alice: Person) -> None:
    owner.submit("/keys/new", name="key", preset="read_only", scopes=["keys:write"])
    assert keys.living(alice.workspace)[0].scopes == ["models:read", "usage:read"]


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"name": "  "}, "name", "Enter a name for the key"),
        ({"name": "x" * 61}, "name", "Use at most 60 characters"),
        ({"name": "taken"}, "name", "Another key has this name"),
        ({"preset": "one_by_one", "scopes": None}, "scopes", "Choose at least one scope"),
        ({"preset": "one_by_one", "scopes": ["all:things"]}, "scopes", "There is no scope “all:things”"),
        ({"preset": "nonsense"}, "preset", "There is no preset “nonsense”"),
        ({"kind": "publishable", "preset": "full"}, "preset", "A publishable key cannot have"),
        (
            {"kind": "publishable", "preset": "one_by_one", "scopes": ["billing:read"]},
            "scopes",
            "A publishable key cannot",
        ),
        ({"kind": "other"}, "kind-0", "Choose secret or publishable"),
        ({"environment": "other"}, "environment-0", "Choose live or test"),
        ({"expires": "soon"}, "expires", "Not a valid choice"),
        ({"expires": "on_a_date", "date": ""}, "date", "Choose a date"),
        ({"expires": "on_a_date", "date": "18.2.2027"}, "date", "Choose a date"),
        ({"expires": "on_a_date", "date": "2020-01-01"}, "date", "Choose a date that is not over"),
        ({"expires": "on_a_date", "date": "2099-01-01", "time": "25:00"}, "time", "Choose a time of day"),
    ],
)
def test_what_is_wrong_is_told_at_the_field_and_above_the_title(
    owner: Visitor, alice: Person, mint: Mint, values: dict[str, Any], field: str, sentence: str
) -> None:
    mint("taken")
    page = owner.submit("/keys/new", **{"name": "Typed name", **values})
    assert owner.status == 422
    assert page.first("title") == "Error: Create New API Key · API Keys · alice · ARKA"
    assert page.text.count(sentence) == 2
    assert f"#{field}" in page.links
    assert field in page.ids
    assert page.text.index("There is a problem") < page.source.index("<h1>")
    assert len(keys.living(alice.workspace)) == 1


def test_what_was_typed_is_kept(owner: Visitor) -> None:
    typed = {
        "name": "Typed name",
        "kind": "publishable",
        "environment": "test",
        "preset": "one_by_one",
        "scopes": ["models:read", "billing:read"],
        "expires": "on_a_date",
        "date": "2099-02-18",
        "time": "14:05",
    }
    page = owner.submit("/keys/new", **typed)
    assert owner.status == 422
    kept: dict[str, list[str]] = {}
    for name, value in page.main_form.fields:
        kept.setdefault(name, []).append(value)
    for name, value in typed.items():
        assert kept[name] == (value if isinstance(value, list) else [value])


def test_a_date_of_today_at_an_hour_that_is_over_is_refused_at_the_date(owner: Visitor) -> None:
    over = now() - timedelta(minutes=2)
    values = {"expires": "on_a_date", "date": f"{over:%Y-%m-%d}", "time": f"{over:%H:%M}"}
    page = owner.submit("/keys/new", name="key", **values)
    assert owner.status == 422
    assert "#date" in page.links


def test_fields_that_no_page_offers_are_ignored(owner: Visitor, alice: Person, charlie: Person) -> None:
    form = owner.open("/keys/new")
    data = {
        **dict(form.main_form.fields),
        "name": "key",
        "workspace_id": charlie.workspace_id,
        "created_by_name": "somebody else",
        "id": "key_chosen",
    }
    owner.one_request("POST", "/keys/new", data=data)
    key = keys.living(alice.workspace)[0]
    assert key.created_by_name == alice.email
    assert key.id != "key_chosen"
    assert not keys.living(charlie.workspace)


# ---- one key


def test_the_facts_of_a_key(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint("Production Server", scopes=["chat:write"], expires_at=now() + timedelta(days=5))
    page = owner.open(f"/keys/{minted.key.id}")
    assert page.first("h1") == "Production Server"
    assert "Not used yet." in page.text
    use(minted, times=2)
    page = owner.open(f"/keys/{minted.key.id}")
    for words in ("chat:write Send prompts to models.", "203.0.113.24", "tests/1.0", "2 in 7 days", minted.key.id):
        assert words in page.text
    assert not FULL_KEY.search(page.source)


@pytest.mark.parametrize("end", ["", "/delete", "/deleted"])
def test_a_strangers_key_is_as_absent_as_one_that_never_was(app: Flask, charlie: Person, mint: Mint, end: str) -> None:
    visitor, minted = Visitor(app).sign_in(charlie), mint()
    pages = []
    for key_id in (minted.key.id, "key_doesnotexist", "nonsense"):
        answer = visitor.one_request("GET", f"/keys/{key_id}{end}")
        assert answer.status_code == 404
        assert "There is no such page, or it is not yours." in answer.text
        # The token of the form that signs out holds the second it was made in.
        pages.append(re.sub(r'name="csrf_token"[^>]*', "", answer.text))
    assert pages[0] == pages[1] == pages[2]


def test_a_stranger_cannot_delete_by_a_request_made_by_hand(app: Flask, charlie: Person, mint: Mint) -> None:
    visitor, minted = Visitor(app).sign_in(charlie), mint("mine")
    visitor.post_by_hand(f"/keys/{minted.key.id}/delete", name="mine")
    assert visitor.status == 404
    assert db.session.get_one(ApiKey, minted.key.id).deleted_at is None


# ---- delete


def test_a_key_that_was_never_used_needs_no_typing(owner: Visitor, mint: Mint) -> None:
    minted = mint("Old importer")
    page = owner.open(f"/keys/{minted.key.id}/delete")
    assert page.first("h1") == "Delete “Old importer”?"
    assert "This key was never used. Deleting it cannot be undone." in page.text
    assert "name" not in page.main_form.names
    page = owner.send(page)
    assert owner.path == f"/keys/{minted.key.id}/deleted"
    assert page.first("h1") == "“Old importer” is deleted"
    assert re.search(r"It stopped working at \d+ \w{3} \d{4}, \d\d:\d\d:\d\d UTC\.", page.text)


def test_a_key_in_use_wants_its_name(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint("Production Server")
    use(minted, times=1204, days_ago=1)
    page = owner.open(f"/keys/{minted.key.id}/delete")
    assert "This key is in use." in page.text
    assert "yesterday from 203.0.113.24 and made 1,204 requests in the last 7 days" in page.text
    for wrong in ("", "production server", "Production"):
        refused = owner.send(page, name=wrong)
        assert owner.status == 422
        assert refused.text.count("Type “Production Server” exactly as it is written") == 2
    owner.send(page, name="  Production  Server ")
    assert owner.path.endswith("/deleted")


def test_the_name_cannot_be_left_out_by_hand(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint("Production Server")
    use(minted)
    owner.post_by_hand(f"/keys/{minted.key.id}/delete")
    assert owner.status == 422
    assert db.session.get_one(ApiKey, minted.key.id).deleted_at is None


def test_a_key_not_used_for_30_days_needs_no_typing(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint("Old importer")
    use(minted, days_ago=31)
    page = owner.open(f"/keys/{minted.key.id}/delete")
    assert "name" not in page.main_form.names
    assert "every program that still uses it gets error 403" in page.text
    owner.send(page)
    assert owner.path.endswith("/deleted")


def test_a_deleted_key_is_refused_from_the_next_request_on(owner: Visitor, mint: Mint) -> None:
    minted = mint(scopes=["models:read"])
    assert owner.one_request("GET", "/v1/models", headers=bearer(minted.secret)).status_code == 200
    owner.submit(f"/keys/{minted.key.id}/delete", name=minted.key.name)
    answer = owner.one_request("GET", "/v1/models", headers=bearer(minted.secret))
    assert answer.status_code == 403
    assert answer.get_json()["error"]["code"] == "invalid_api_key"


def test_deleting_twice_ends_on_the_same_page(owner: Visitor, mint: Mint) -> None:
    minted = mint("key")
    form = owner.open(f"/keys/{minted.key.id}/delete")
    first = owner.send(form)
    second = owner.send(form)
    assert owner.path == f"/keys/{minted.key.id}/deleted"
    assert first.text == second.text
    owner.open(f"/keys/{minted.key.id}/delete")
    assert owner.path == f"/keys/{minted.key.id}/deleted"


def test_a_deleted_key_leaves_the_list_and_keeps_its_facts(owner: Visitor, mint: Mint) -> None:
    minted = mint("gone for good")
    owner.submit(f"/keys/{minted.key.id}/delete")
    assert "gone for good" not in owner.open("/keys").text
    page = owner.open(f"/keys/{minted.key.id}")
    assert "Deleted" in page.text
    assert f"/keys/{minted.key.id}/delete" not in page.links


def test_the_page_of_a_living_key_does_not_say_it_is_deleted(owner: Visitor, mint: Mint) -> None:
    minted = mint("alive")
    owner.open(f"/keys/{minted.key.id}/deleted")
    assert owner.path == f"/keys/{minted.key.id}"


def test_a_key_made_by_a_command_is_shown_too(owner: Visitor, alice: Person) -> None:
    command = Actor(kind="command", name="operator at the console")
    keys.mint(alice.workspace, actor=command, name="by command", kind="secret", environment="live")
    assert "operator at the console, " in row_of(owner.open("/keys"), "by command")
