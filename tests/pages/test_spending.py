"""Spending limits on the pages: owners and admins set them, for the workspace and for keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extensions import db
from models import ApiKey, AuditEvent, Workspace
from models.base import now
from services import keys
from services.keys import Minted
from services.restrictions import Restrictions
from services.spending_counters import period_end
from tests.pages.visitor import Visitor
from tests.people import Person

USD = 1_000_000_000
Mint = Callable[..., Minted]


def limits_of(owner: Workspace | ApiKey) -> tuple[int | None, int | None, bool]:
    db.session.expire_all()
    return owner.monthly_limit_nano_usd, owner.daily_limit_nano_usd, owner.allow_unknown_price


def test_an_owner_limits_the_workspace_and_lifts_the_limit(owner: Visitor, alice: Person) -> None:
    page = owner.submit("/usage/limits", monthly_limit_usd="$1,000", daily_limit_usd="50.5", allow_unknown_price="y")
    assert "The spending limits are saved." in page.text
    assert limits_of(alice.workspace) == (1000 * USD, 50 * USD + USD // 2, True)
    for amounts in ("$0.00 of $1000.00", "$0.00 of $50.50"):
        assert amounts in page.text
    assert f"1 {period_end('month', now()):%b %Y}, 00:00 UTC" in page.text
    assert dict(page.main_form.fields)["daily_limit_usd"] == "50.50"
    owner.submit("/usage/limits", monthly_limit_usd="", daily_limit_usd=" ", allow_unknown_price=None)
    assert limits_of(alice.workspace) == (None, None, False)
    told = db.session.query(AuditEvent).filter_by(action="spending:limit").order_by(AuditEvent.number).all()
    assert [event.details["monthly_limit_usd"] for event in told] == ["1000.00", None]


@pytest.mark.parametrize("wrong", ["ten", "-1", "12,50", "0.0000000001"])
def test_a_wrong_amount_is_told_at_its_field_and_changes_nothing(owner: Visitor, alice: Person, wrong: str) -> None:
    page = owner.submit("/usage/limits", monthly_limit_usd=wrong, daily_limit_usd="5")
    assert owner.status == 422
    assert page.text.count("Give a") == 2
    assert "#monthly_limit_usd" in page.links
    assert dict(page.main_form.fields)["monthly_limit_usd"] == wrong
    assert limits_of(alice.workspace) == (None, None, False)


def test_who_is_no_admin_sets_no_limit(viewer: Visitor, developer: Visitor, alice: Person) -> None:
    for visitor in (viewer, developer):
        assert "You need the admin role for this." in visitor.open("/usage/limits").text
        visitor.post_by_hand("/usage/limits", monthly_limit_usd="1")
        assert visitor.status == 403
    assert limits_of(alice.workspace) == (None, None, False)


def test_a_key_is_made_with_spending_limits_and_shows_them(owner: Visitor, alice: Person) -> None:
    owner.submit("/keys/new", name="thrifty", monthly_limit_usd="20", daily_limit_usd="2.50")
    key = keys.living(alice.workspace)[0]
    assert limits_of(key) == (20 * USD, 2 * USD + USD // 2, False)
    text = owner.open(f"/keys/{key.id}").text
    for words in ("Spending per month $20.00", "Spending per day $2.50", "Models of unknown price Refused"):
        assert words in text
    page = owner.open(f"/keys/{key.id}/edit")
    assert dict(page.main_form.fields)["monthly_limit_usd"] == "20.00"
    assert '<details class="disc" open>' in page.source
    owner.send(page, monthly_limit_usd="", allow_unknown_price="y")
    assert limits_of(key) == (None, 2 * USD + USD // 2, True)


def test_a_developer_s_own_key_keeps_the_limit_that_an_owner_set(
    developer: Visitor, dora: Person, alice: Person
) -> None:
    page = developer.open("/keys/new")
    assert "monthly_limit_usd" not in page.main_form.names
    developer.send(page, name="mine")
    key = keys.living(alice.workspace)[0]
    limits = Restrictions(monthly_limit_nano_usd=USD)
    keys.change(alice.workspace, key.id, actor=alice.actor, restrictions=limits)
    developer.submit(f"/keys/{key.id}/edit", name="renamed")
    # Nor when the fields are sent by hand.
    sent = {"name": "renamed", "expires": "never", "monthly_limit_usd": "999", "allow_unknown_price": "y"}
    developer.post_by_hand(f"/keys/{key.id}/edit", **sent)
    db.session.expire_all()
    assert key.name == "renamed"
    assert limits_of(key) == (USD, None, False)
    assert key.expires_at is None
