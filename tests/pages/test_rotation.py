"""The pages of a rotation, and of disabling: what they say, whom they let in, what happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from flask import Flask

from extensions import db
from models import ApiKey
from models.base import now, transaction
from services import keys, rotation, workspaces
from services.keys import Minted
from services.secret import Secret
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person, bearer

Mint = Callable[..., Minted]
Use = Callable[..., None]

FULL_KEY = re.compile(r"arka_[sp]k_(test_)?[0-9A-Za-z]{32}")
ACTS = ("edit", "rotate", "rotation", "disable")


def works(visitor: Visitor, secret: Secret) -> bool:
    return visitor.one_request("GET", "/v1/models", headers=bearer(secret)).status_code == 200


def shown_key(page: Html) -> str:
    found = FULL_KEY.search(page.source)
    assert found, page.text
    return found[0]


def overlapping(alice: Person, mint: Mint, hours: float = 24) -> Minted:
    """A key with two living secrets; ``secret`` is the previous one."""
    minted = mint("Billing sync")
    rotation.rotate(alice.workspace, minted.key.id, actor=alice.actor, until=now() + timedelta(hours=hours))
    return minted


def previous_end(minted: Minted) -> datetime:
    db.session.expire_all()
    previous = rotation.previous_secret(db.session.get_one(ApiKey, minted.key.id))
    assert previous is not None
    assert previous.ends_at is not None
    return previous.ends_at


# ---- rotate


def test_the_page_says_what_each_choice_means(owner: Visitor, mint: Mint) -> None:
    minted = mint("Billing sync")
    page = owner.open(f"/keys/{minted.key.id}/rotate")
    assert page.first("h1") == "Rotate “Billing sync”"
    tomorrow = now() + timedelta(hours=24)
    for words in (
        "The key stays the same: name, scopes, limits, history.",
        "Use this if it has leaked.",
        f"24 hours Until {tomorrow:%a} {tomorrow.day} {tomorrow:%b %Y}",
        "Until a moment I choose",
    ):
        assert words in page.text
    assert ("overlap", "24h") in page.main_form.fields
    assert "This key is in use" not in page.text


def test_a_key_in_use_is_said_to_be(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint()
    use(minted, times=7)
    text = owner.open(f"/keys/{minted.key.id}/rotate").text
    assert "This key is in use. It was last used just now from 203.0.113.24 and made 7 requests" in text
    assert "With “Stop it now” every program" in text


def test_rotating_shows_the_new_secret_once_and_both_work(owner: Visitor, mint: Mint) -> None:
    minted = mint("Billing sync", scopes=["models:read"])
    page = owner.submit(f"/keys/{minted.key.id}/rotate")
    assert page.first("h1") == "Save the new secret"
    assert owner.answer is not None
    assert owner.answer.headers["Cache-Control"] == "no-store"
    assert "The previous secret works until" in page.text
    assert works(owner, Secret(shown_key(page)))
    assert works(owner, minted.secret)
    assert not FULL_KEY.search(owner.open("/keys").source)


def test_now_ends_the_previous_secret(owner: Visitor, mint: Mint) -> None:
    minted = mint(scopes=["models:read"])
    page = owner.submit(f"/keys/{minted.key.id}/rotate", overlap="now")
    assert "The previous secret has stopped working." in page.text
    assert works(owner, Secret(shown_key(page)))
    assert not works(owner, minted.secret)


def test_sending_the_form_again_rotates_nothing(owner: Visitor, mint: Mint) -> None:
    minted = mint("Billing sync")
    form = owner.open(f"/keys/{minted.key.id}/rotate")
    owner.send(form)
    newest = db.session.get_one(ApiKey, minted.key.id).secrets[0].id
    again = owner.send(form)
    assert again.first("h1") == "This key was already shown"
    assert "If you did not save it, rotate the key." in again.text
    assert not FULL_KEY.search(again.source)
    db.session.expire_all()
    assert db.session.get_one(ApiKey, minted.key.id).secrets[0].id == newest


def test_a_chosen_moment(owner: Visitor, mint: Mint) -> None:
    minted = mint()
    owner.submit(f"/keys/{minted.key.id}/rotate", overlap="moment", date="2099-02-18", time="14:05")
    assert str(previous_end(minted)) == "2099-02-18 14:05:00+00:00"


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"overlap": "moment", "date": ""}, "date", "Choose a date"),
        ({"overlap": "moment", "date": "2020-01-01"}, "date", "Choose a date that is not over"),
        ({"overlap": "moment", "date": "2099-01-01"}, "date", "not after the key’s own expiry"),
        ({"overlap": "moment", "date": "2099-01-01", "time": "x"}, "time", "Choose a time of day"),
        ({"overlap": "forever"}, "overlap-0", "Not a valid choice"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_rotates(
    owner: Visitor, mint: Mint, values: dict[str, str], field: str, sentence: str
) -> None:
    minted = mint(expires_at=now() + timedelta(days=30))
    page = owner.submit(f"/keys/{minted.key.id}/rotate", **values)
    assert owner.status == 422
    assert page.text.count(sentence) == 2
    assert f"#{field}" in page.links
    assert len(db.session.get_one(ApiKey, minted.key.id).secrets) == 1


def test_what_would_outlive_the_key_is_not_offered(owner: Visitor, mint: Mint) -> None:
    minted = mint(expires_at=now() + timedelta(hours=3))
    page = owner.open(f"/keys/{minted.key.id}/rotate")
    assert ("overlap", "1h") in page.main_form.fields
    assert "7 days" not in page.text
    assert "Not after the key itself expires" in page.text
    owner.post_by_hand(f"/keys/{minted.key.id}/rotate", overlap="7d")
    assert owner.status == 422


def test_an_expired_key_wants_its_expiry_first(owner: Visitor, mint: Mint) -> None:
    minted = mint("Partner demo")
    with transaction():
        minted.key.expires_at = now() - timedelta(days=1)
    assert "Set its expiry first" in owner.open(f"/keys/{minted.key.id}/rotate").text
    owner.post_by_hand(f"/keys/{minted.key.id}/rotate", overlap="now")
    assert owner.status == 422


# ---- the overlap


def test_the_list_shows_both_secrets(owner: Visitor, alice: Person, mint: Mint, use: Use) -> None:
    minted = overlapping(alice, mint)
    page = owner.open("/keys")
    assert "Billing sync is being rotated. Its previous secret works until" in page.text
    assert "and was not used since" in page.text
    for words in ("Billing sync, Previous secret", "Retiring", "since the rotation", "Finish now Billing sync"):
        assert words in page.text
    previous = db.session.get_one(ApiKey, minted.key.id).secrets[1]
    assert previous.mask in page.text
    assert f"/keys/{minted.key.id}/rotation" in page.links


def test_who_still_uses_the_previous_secret(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = mint("Billing sync", scopes=["models:read"])
    rotation.rotate(alice.workspace, minted.key.id, actor=alice.actor, until=now() + timedelta(hours=24))
    page = owner.open(f"/keys/{minted.key.id}/rotation")
    assert "Nobody since the rotation" in page.text
    assert works(owner, minted.secret)
    page = owner.open(f"/keys/{minted.key.id}/rotation")
    assert re.search(r"127\.0\.0\.1 Werkzeug/[\d.]+ 1 Just now", page.text)
    assert "has not been used for 24 hours" not in page.text


def test_a_quiet_day_is_said(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = overlapping(alice, mint, hours=100)
    with transaction():
        db.session.get_one(ApiKey, minted.key.id).secrets[1].created_at = now() - timedelta(days=9)
        db.session.get_one(ApiKey, minted.key.id).secrets[0].created_at = now() - timedelta(hours=25)
    text = owner.open(f"/keys/{minted.key.id}/rotation").text
    assert "The previous secret has not been used for 24 hours. You can finish now." in text


def test_finish_now(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = overlapping(alice, mint)
    page = owner.open(f"/keys/{minted.key.id}/rotation")
    page = owner.send(page)
    assert owner.path == f"/keys/{minted.key.id}"
    assert "The rotation of “Billing sync” is finished." in page.text
    assert not works(owner, minted.secret)
    owner.post_by_hand(f"/keys/{minted.key.id}/rotation/finish")
    assert owner.path == f"/keys/{minted.key.id}"
    assert owner.status == 200


def test_more_time(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = overlapping(alice, mint, hours=1)
    page = owner.post_by_hand(f"/keys/{minted.key.id}/rotation", overlap="7d")
    assert "has another end" in page.text
    assert abs(previous_end(minted) - now() - timedelta(days=7)) < timedelta(minutes=1)
    page = owner.post_by_hand(f"/keys/{minted.key.id}/rotation", overlap="moment", date="2001-01-01", time="00:00")
    assert owner.status == 422
    assert page.text.count("Choose a date that is not over") == 2
    owner.post_by_hand(f"/keys/{minted.key.id}/rotation", overlap="now")
    assert owner.status == 422


def test_without_an_overlap_there_is_nothing_to_see(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = mint("Billing sync")
    owner.open(f"/keys/{minted.key.id}/rotation")
    assert owner.path == f"/keys/{minted.key.id}"
    over = overlapping_in_the_past(alice, mint)
    page = owner.open(f"/keys/{over.key.id}/rotation")
    assert "The previous secret of “over” stopped working at" in page.text


def overlapping_in_the_past(alice: Person, mint: Mint) -> Minted:
    minted = mint("over")
    rotation.rotate(alice.workspace, minted.key.id, actor=alice.actor, until=now() + timedelta(hours=1))
    with transaction():
        db.session.get_one(ApiKey, minted.key.id).secrets[1].ends_at = now() - timedelta(hours=1)
    return minted


def test_rotating_during_an_overlap_says_what_ends(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = overlapping(alice, mint)
    page = owner.open(f"/keys/{minted.key.id}/rotate")
    assert "The previous secret ends at once. Only two can be alive." in page.text
    owner.send(page)
    assert not works(owner, minted.secret)


def test_a_secret_that_is_due(owner: Visitor, mint: Mint) -> None:
    minted = mint()
    with transaction():
        minted.key.secrets[0].created_at = now() - timedelta(days=100)
    page = owner.open(f"/keys/{minted.key.id}")
    assert "The secret is 100 days old. Change it every 90 days. Rotate" in page.text
    assert "key 1 has a secret that is 100 days old." in owner.open("/overview").text


# ---- disable, enable


def test_disable_and_enable(owner: Visitor, mint: Mint) -> None:
    minted = mint("Old importer", scopes=["models:read"])
    page = owner.open(f"/keys/{minted.key.id}/disable")
    assert "Programs that use “Old importer” get error 403 from the next request on." in page.text
    page = owner.send(page)
    assert "Key “Old importer” is disabled." in page.text
    assert "Enable Old importer" in page.text
    assert "Rotate Old importer" not in page.text
    assert not works(owner, minted.secret)
    owner.open(f"/keys/{minted.key.id}/disable")
    assert owner.path == f"/keys/{minted.key.id}"
    page = owner.post_by_hand(f"/keys/{minted.key.id}/enable")
    assert "Key “Old importer” is enabled." in page.text
    assert works(owner, minted.secret)


def test_nothing_happens_without_the_forms_token(owner: Visitor, mint: Mint) -> None:
    minted = mint()
    for act in ("edit", "rotate", "rotation", "rotation/finish", "disable", "enable", "delete"):
        answer = owner.one_request("POST", f"/keys/{minted.key.id}/{act}", data={"overlap": "now"})
        assert answer.status_code == 400, act
    db.session.expire_all()
    key = db.session.get_one(ApiKey, minted.key.id)
    assert key.status() == "active"
    assert len(key.secrets) == 1


# ---- who may


def test_a_developer_acts_on_own_keys_only(developer: Visitor, alice: Person, mint: Mint) -> None:
    hers = overlapping(alice, mint)
    for act in ("edit", "rotate", "disable"):
        page = developer.open(f"/keys/{hers.key.id}/{act}")
        assert developer.status == 403
        assert f"This key is managed by {alice.email}." in page.text
    for act in ("edit", "rotate", "rotation", "rotation/finish", "disable", "enable"):
        developer.post_by_hand(f"/keys/{hers.key.id}/{act}", overlap="7d")
        assert developer.status == 403, act
    developer.submit("/keys/new", name="mine")
    mine = next(key for key in keys.living(alice.workspace) if key.name == "mine")
    developer.submit(f"/keys/{mine.id}/rotate")
    assert developer.status == 200
    assert f"/keys/{hers.key.id}/rotate" not in developer.open("/keys").links


def test_a_viewer_looks_and_acts_on_nothing(viewer: Visitor, alice: Person, mint: Mint) -> None:
    minted = overlapping(alice, mint)
    page = viewer.open(f"/keys/{minted.key.id}/rotation")
    assert viewer.status == 200
    assert "Finish now" not in page.text
    for act in ("edit", "rotate", "rotation", "rotation/finish", "disable", "enable"):
        viewer.post_by_hand(f"/keys/{minted.key.id}/{act}", overlap="7d")
        assert viewer.status == 403, act
    assert previous_end(minted) < now() + timedelta(hours=25)


def test_a_strangers_key_is_absent_everywhere(app: Flask, charlie: Person, alice: Person, mint: Mint) -> None:
    visitor, minted = Visitor(app).sign_in(charlie), overlapping(alice, mint)
    for key_id in (minted.key.id, "key_doesnotexist"):
        for act in ACTS:
            visitor.open(f"/keys/{key_id}/{act}")
            assert visitor.status == 404
        for act in ("edit", "rotate", "rotation", "rotation/finish", "disable", "enable"):
            visitor.post_by_hand(f"/keys/{key_id}/{act}", overlap="now", name="x")
            assert visitor.status == 404
    assert previous_end(minted) > now()


def test_after_a_downgrade_keys_can_be_ended_and_changed_but_not_rotated(
    owner: Visitor, alice: Person, mint: Mint
) -> None:
    minted = overlapping(alice, mint)
    form = owner.open(f"/keys/{minted.key.id}/rotate")
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    page = owner.open("/keys")
    assert f"/keys/{minted.key.id}/rotate" not in page.links
    assert f"/keys/{minted.key.id}/disable" in page.links
    owner.open(f"/keys/{minted.key.id}/rotate")
    assert owner.path == "/keys"
    page = owner.send(form)
    assert owner.status == 403
    assert "API keys come with the Agency plan." in page.text
    owner.submit(f"/keys/{minted.key.id}/edit", name="renamed", requests_per_minute="500")
    assert owner.path == f"/keys/{minted.key.id}"
    owner.post_by_hand(f"/keys/{minted.key.id}/rotation/finish")
    assert owner.status == 200
    owner.submit(f"/keys/{minted.key.id}/disable")
    db.session.expire_all()
    key = db.session.get_one(ApiKey, minted.key.id)
    assert (key.name, key.status(), len(key.secrets)) == ("renamed", "disabled", 1)
