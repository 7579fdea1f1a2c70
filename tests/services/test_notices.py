"""Notices: what the portal notices is told once for each occasion, however often and by how many it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update

from config import ROOT
from extensions import db
from models import (
    ApiKey,
    ApiKeySecret,
    AuditEvent,
    Job,
    KeyAddress,
    MailMessage,
    Membership,
    Notice,
    ProviderKey,
    SpendingCounter,
    User,
    WebhookEvent,
)
from models.base import now, transaction
from services import (
    key_notices,
    keys,
    notice_choices,
    notices,
    provider_keys,
    provider_notices,
    spending,
    spending_notices,
    usage_watch,
    webhooks,
)
from services.errors import InvalidInput
from services.permissions import Role
from services.secret import Secret
from services.usage_watch import folded
from tests.calls import Owner, call, keep
from tests.people import Person, join, make_person
from tests.services.test_database import in_threads

Mint = Callable[..., keys.Minted]
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _endpoint(alice: Person) -> None:
    """Somebody wants every event."""
    webhooks.create(alice.workspace, actor=alice.actor, url="https://hooks.example/")


def mails() -> list[MailMessage]:
    db.session.rollback()
    return list(db.session.scalars(select(MailMessage).order_by(MailMessage.created_at, MailMessage.id)))


def told() -> list[tuple[str, str]]:
    """Recipient and subject of every mail; what was there is taken away."""
    found = [(mail.recipient, mail.subject) for mail in mails()]
    with transaction() as session:
        for mail in session.scalars(select(MailMessage)):
            session.delete(mail)
    return found


def events(kind: str) -> list[dict[str, Any]]:
    return [
        event.data
        for event in db.session.scalars(select(WebhookEvent).order_by(WebhookEvent.created_at))
        if event.kind == kind
    ]


def owner_of(minted: keys.Minted) -> Owner:
    return Owner(minted.key.workspace_id, minted.key.id, minted.key.secrets[0].id)


def age(minted: keys.Minted, created: timedelta) -> None:
    with transaction() as session:
        at = now() - created
        session.execute(update(ApiKey).where(ApiKey.id == minted.key.id).values(created_at=at))
        session.execute(update(ApiKeySecret).where(ApiKeySecret.api_key_id == minted.key.id).values(created_at=at))


# ---- The time of keys


def test_a_keys_end_is_told_30_7_and_1_days_before_once_each(app: Flask, alice: Person, mint: Mint) -> None:
    end = now() + 40 * DAY
    key = mint("Server", expires_at=end).key
    expected = {40: 0, 31: 0, 29: 1, 20: 0, 8: 0, 6: 1, 2: 0, 0.9: 1, 0.1: 0}
    for days, count in expected.items():
        with time_machine.travel(end - days * DAY, tick=True):
            assert in_threads(app, key_notices.tell_of_expiry) == []
            key_notices.tell_of_expiry()
            assert len(told()) == count, days
    assert [event["key"]["id"] for event in events("key.expiring")] == [key.id] * 3


def test_a_key_made_for_a_week_is_not_told_of_at_once(alice: Person, mint: Mint) -> None:
    mint("Week", expires_at=now() + 7 * DAY)
    mint("Month", expires_at=now() + 30 * DAY)
    key_notices.tell_of_expiry()
    assert told() == []
    with time_machine.travel(now() + 6.5 * DAY, tick=True):
        key_notices.tell_of_expiry()
        assert [subject.partition(" expires")[0] for _, subject in told()] == ["Your API key “Week”"]


def test_another_expiry_is_another_occasion(alice: Person, mint: Mint) -> None:
    minted = mint("Server", expires_at=now() + 90 * DAY)
    age(minted, 20 * DAY)
    for days in (5, 6):
        keys.change(alice.workspace, minted.key.id, actor=alice.actor, expires_at=now() + days * DAY)
        key_notices.tell_of_expiry()
        key_notices.tell_of_expiry()
        (mail,) = told()
        assert mail[0] == alice.email


def test_several_keys_come_in_one_mail_to_whoever_made_them_or_else_to_managers(
    alice: Person, bob: Person, mint: Mint
) -> None:
    dora = make_person("dora@northwind.example")
    join(dora, alice, Role.DEVELOPER)
    for number in range(3):
        minted = keys.mint(
            alice.workspace, actor=dora.actor, name=f"hers {number}", kind="secret", environment="live",
            scopes=["usage:read"], expires_at=now() + 60 * DAY,
        )  # fmt: skip
    assert minted.key.created_by_id == dora.user_id
    end = mint("mine", expires_at=now() + 60 * DAY).key.expires_at
    with time_machine.travel(now() + 54 * DAY, tick=True):
        key_notices.tell_of_expiry()
        assert sorted(told()) == [
            (alice.email, f"Your API key “mine” expires on {end:%d %b %Y}"),
            (dora.email, "3 of your API keys expire soon"),
        ]
        with transaction() as session:
            session.delete(session.get_one(Membership, (alice.workspace_id, dora.user_id)))
    with time_machine.travel(now() + 59.5 * DAY, tick=True):
        key_notices.tell_of_expiry()
        assert told() == [(alice.email, "4 of your API keys expire soon")]


@pytest.mark.parametrize("end", ["disable", "delete"])
def test_nothing_is_told_of_a_key_that_nobody_uses_any_more(alice: Person, mint: Mint, end: str) -> None:
    minted = mint("Server", expires_at=now() + 60 * DAY)
    age(minted, 100 * DAY)
    getattr(keys, end)(alice.workspace, minted.key.id, actor=alice.actor)
    with time_machine.travel(now() + 59.5 * DAY, tick=True):
        key_notices.tell_of_expiry()
        key_notices.tell_of_rotation()
    with time_machine.travel(now() + 60.5 * DAY, tick=True):
        key_notices.tell_of_expired()
    assert told() == []
    assert events("key.expired") == []


def test_that_a_key_has_expired_is_an_event_once(alice: Person, mint: Mint) -> None:
    key = mint("Server", expires_at=now() + DAY).key
    key_notices.tell_of_expired()
    assert events("key.expired") == []
    with time_machine.travel(now() + DAY + timedelta(seconds=5), tick=True):
        key_notices.tell_of_expired()
        key_notices.tell_of_expired()
    assert [event["key"]["name"] for event in events("key.expired")] == [key.name]
    assert told() == []


def test_a_secret_is_due_for_rotation_once(app: Flask, alice: Person, mint: Mint) -> None:
    old, young, expired = mint("Old"), mint("Young"), mint("Expired", expires_at=now() + timedelta(hours=1))
    age(old, 90 * DAY)
    age(young, 89 * DAY)
    age(expired, 200 * DAY)
    with time_machine.travel(now() + timedelta(hours=2), tick=True):
        assert in_threads(app, key_notices.tell_of_rotation) == []
        assert told() == [(alice.email, "The secret of “Old” is due for rotation")]
    with time_machine.travel(now() + 30 * DAY, tick=True):
        key_notices.tell_of_rotation()
        assert told() == [(alice.email, "The secret of “Young” is due for rotation")]
    assert [event["key"]["name"] for event in events("key.rotation_due")] == ["Old", "Young"]


def test_a_clock_that_goes_back_tells_nothing_twice(alice: Person, mint: Mint) -> None:
    end = now() + 40 * DAY
    mint("Server", expires_at=end)
    for days in (6.9, 7.9, 6.8, 31, 6.9):
        with time_machine.travel(end - days * DAY, tick=True):
            key_notices.tell_of_expiry()
    assert [mail.subject for mail in mails()] == [f"Your API key “Server” expires on {end:%d %b %Y}"] * 2
    assert len(events("key.expiring")) == 2


# ---- Spending


def spent(owner_id: str, workspace_id: str, nano_usd: int, period: str | None = None) -> None:
    with transaction() as session:
        period = period or f"{now():%Y-%m}"
        row = session.get(SpendingCounter, (owner_id, period)) or SpendingCounter(
            owner_id=owner_id, period=period, workspace_id=workspace_id, held_nano_usd=0, created_at=now()
        )
        row.spent_nano_usd = nano_usd
        session.add(row)


def limit(alice: Person, dollars: int) -> None:
    spending.set_limits(
        alice.workspace, daily_nano_usd=None, monthly_nano_usd=dollars * 10**9, allow_unknown_price=False,
        actor=alice.actor,
    )  # fmt: skip


def test_80_and_100_per_cent_are_told_once_for_each_period_and_limit(app: Flask, alice: Person) -> None:
    limit(alice, 100)
    steps = [(79, 0), (80, 1), (90, 0), (100, 1), (120, 0)]
    for dollars, count in steps:
        spent(alice.workspace_id, alice.workspace_id, dollars * 10**9)
        assert in_threads(app, spending_notices.look) == []
        assert len(told()) == count, dollars
    limit(alice, 1000)
    spent(alice.workspace_id, alice.workspace_id, 810 * 10**9)
    spending_notices.look()
    assert [subject for _, subject in told()] == ["alice has used 80 % of its limit"]
    found = events("spending.threshold_reached")
    assert [(event["percent"], event["limit_usd"], event["whose"]) for event in found] == [
        (80, "100.00", "workspace"),
        (100, "100.00", "workspace"),
        (80, "1000.00", "workspace"),
    ]
    with time_machine.travel(now() + 32 * DAY, tick=True):
        spending_notices.look()
        assert told() == []
        spent(alice.workspace_id, alice.workspace_id, 900 * 10**9)
        spending_notices.look()
        assert len(told()) == 1


def test_all_at_once_is_one_notice(alice: Person, mint: Mint) -> None:
    key = mint("Server", environment="live").key
    with transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key.id).values(daily_limit_nano_usd=10**9))
    spent(key.id, alice.workspace_id, 2 * 10**9, f"{now():%Y-%m-%d}")
    spending_notices.look()
    spending_notices.look()
    assert told() == [(alice.email, "Spending limit of “Server” reached")]
    assert [event["key"]["id"] for event in events("spending.threshold_reached")] == [key.id]


def test_a_limit_is_reached_when_calls_no_longer_fit(alice: Person, mint: Mint) -> None:
    """What is left may be less than any call costs, so that all is never spent."""
    usage_watch.look()
    minted = mint("Server", environment="live")
    limit(alice, 100)
    spent(alice.workspace_id, alice.workspace_id, 97 * 10**9)
    spending_notices.look()
    assert [subject for _, subject in told()] == ["alice has used 80 % of its limit"]
    keep([call(owner_of(minted), now(), code="spending_limit_reached", status=402)])
    usage_watch.look()
    assert [subject for _, subject in told()] == ["Spending limit of alice reached"]


# ---- Provider keys


@pytest.mark.parametrize("minute", [0, 59])
def test_a_provider_key_that_turns_bad_or_heals_is_told_once(app: Flask, alice: Person, minute: int) -> None:
    begin = (now() + timedelta(days=1)).replace(minute=minute, second=0)
    row = provider_keys.save(alice.workspace, "openai", Secret("sk-" + "a" * 30), actor=alice.actor, check=False)

    def be(state: str, hours: float) -> list[str]:
        with time_machine.travel(begin + timedelta(hours=hours), tick=True):
            with transaction() as session:
                session.execute(
                    update(ProviderKey).where(ProviderKey.id == row.id).values(state=state, state_seen_at=now())
                )
            assert in_threads(app, provider_notices.look) == []
            return [subject for _, subject in told()]

    assert be("unverified", 0) == []
    assert be("valid", 0) == []
    assert be("invalid", 0) == ["OpenAI refuses your key"]
    assert be("invalid", 7) == []
    assert be("unreachable", 8) == []
    assert be("invalid", 8) == []
    assert be("valid", 9) == ["OpenAI accepts your key again"]
    assert be("no_credit", 10) == ["Your OpenAI account has no credit"]
    assert be("invalid", 11) == ["OpenAI refuses your key"]
    # It goes to and fro within an hour.
    assert be("valid", 11.02) == ["OpenAI accepts your key again"]
    assert be("invalid", 11.04) == []
    assert be("invalid", 12.1) == ["OpenAI refuses your key"]
    found = [event["provider_key"]["state"] for event in events("provider_key.state_changed")]
    assert found == ["invalid", "valid", "no_credit", "invalid", "valid", "invalid"]


def test_another_key_that_is_bad_is_news(alice: Person) -> None:
    for number in range(2):
        with time_machine.travel(now() + timedelta(hours=2 * number), tick=True):
            provider_keys.save(alice.workspace, "openai", Secret("sk-" + "a" * 30), actor=alice.actor, check=False)
            with transaction() as session:
                session.execute(update(ProviderKey).values(state="invalid", state_words="no sk-abcdefgh1234"))
            provider_notices.look()
            provider_notices.look()
            assert len(told()) == 1


# ---- What calls tell


@pytest.fixture
def watch(alice: Person) -> Callable[[list[dict[str, Any]]], list[str]]:
    """Keep calls and look at them; return the subjects of what was told."""
    usage_watch.look()

    def watch(rows: list[dict[str, Any]]) -> list[str]:
        keep(rows)
        while usage_watch.look():
            pass
        return [subject for _, subject in told()]

    return watch


Watch = Callable[[list[dict[str, Any]]], list[str]]


def test_a_key_used_from_a_new_address_is_told_but_not_its_first_use(
    app: Flask, alice: Person, mint: Mint, watch: Watch
) -> None:
    minted = mint("Server")
    owner = owner_of(minted)
    news = ["Your API key “Server” was used from a new address"]
    assert watch([call(owner, now(), address="203.0.113.1")]) == []
    assert watch([call(owner, now(), address="203.0.113.1")]) == []
    assert watch([call(owner, now(), address="203.0.113.2", client="curl/8")]) == news
    keep([call(owner, now(), address="203.0.113.3"), call(owner, now(), address="203.0.113.2")])
    assert in_threads(app, usage_watch.look) == []
    assert [mail.subject for mail in mails()] == news
    told()
    entries = db.session.scalars(select(AuditEvent).where(AuditEvent.action == "key:new_address")).all()
    assert [(entry.actor_kind, entry.address, entry.object_id) for entry in entries] == [
        ("api_key", "203.0.113.2", minted.key.id),
        ("api_key", "203.0.113.3", minted.key.id),
    ]
    found = events("key.used_from_new_address")
    assert [event["address"] for event in found] == ["203.0.113.2", "203.0.113.3"]


def test_refused_calls_attempts_and_publishable_keys_are_no_use_from_an_address(
    alice: Person, mint: Mint, watch: Watch
) -> None:
    owner = owner_of(mint("Server"))
    public = owner_of(mint("Public", kind="publishable", scopes=["models:read"]))
    watch([call(owner, now(), address="203.0.113.1")])
    codes = ["invalid_api_key", "ip_not_allowed", "disabled_api_key", "rate_limit_exceeded"]
    rows = [call(owner, now(), address="203.0.113.9", code=code, status=403) for code in codes]
    rows += [call(public, now(), address=f"203.0.113.{number}") for number in range(5)]
    rows += [call(Owner(alice.workspace_id, None, None), now(), address="203.0.113.8")]
    assert [subject for subject in watch(rows) if "address" in subject] == []
    assert watch([call(owner, now(), address="203.0.113.9", code="provider_error", status=502)]) != []


def test_nobody_is_flooded_with_addresses(alice: Person, mint: Mint, watch: Watch) -> None:
    owner = owner_of(mint("Server"))
    watch([call(owner, now(), address="203.0.113.1")])
    subjects = watch([call(owner, now(), address=f"198.51.100.{number}") for number in range(30)])
    usual, last = "was used from a new address", "was used from more new addresses"
    assert [subject.partition("” ")[2] for subject in subjects] == [usual] * 3 + [last]
    assert watch([call(owner, now(), address="198.51.100.77")]) == []
    assert len(events("key.used_from_new_address")) == 31
    with time_machine.travel(now() + DAY, tick=True):
        assert len(watch([call(owner, now(), address="198.51.100.78")])) == 1


def test_a_key_that_was_used_before_anybody_looked_begins_with_what_is_found(
    alice: Person, mint: Mint, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_watch, "_SEEN_TWICE", 0)
    owner = owner_of(mint("Server"))
    keep([call(owner, now() - DAY, address="203.0.113.1")])
    with transaction() as session:
        session.execute(update(Job).where(Job.name == usage_watch.NAME).values(seen_id=10**6))
    usage_watch.look()
    assert watch([call(owner, now(), address=f"203.0.113.{number}") for number in (2, 3)]) == []
    assert len(watch([call(owner, now(), address="203.0.113.4")])) == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_ipv6_address_counts_by_its_network(address: str, expected: str) -> None:
    assert folded(address) == expected


def test_every_row_is_looked_at_however_many_there_are(
    alice: Person, mint: Mint, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_watch, "_AT_ONCE", 7)
    monkeypatch.setattr(usage_watch, "_SEEN_TWICE", 2)
    owner = owner_of(mint("Server"))
    watch([call(owner, now(), address=f"203.0.113.{number % 50}") for number in range(100)])
    assert len(db.session.scalars(select(KeyAddress)).all()) == 50
    assert not usage_watch.look()


def test_the_rate_limit_is_told_once_a_day_with_figures(
    app: Flask, alice: Person, charlie: Person, mint: Mint, watch: Watch
) -> None:
    minted, other = mint("Importer"), mint("Other")
    limited = {"code": "rate_limit_exceeded", "status": 429}
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    with time_machine.travel(noon, tick=True):
        assert watch([call(owner_of(minted), now())]) == []
        rows = [call(owner_of(minted), now(), **limited) for _ in range(5)] + [call(owner_of(other), now(), **limited)]
        assert watch(rows) == ["alice reached its rate limit"]
        assert watch([call(owner_of(minted), now(), **limited)]) == []
    (event,) = events("rate_limit.reached")
    assert (event["refused_calls"], event["requests_per_minute"]) == (6, 1000)
    assert event["busiest_key"]["name"] == "Importer"
    with time_machine.travel(noon + DAY, tick=True):
        assert watch([call(owner_of(other), now(), **limited)]) == ["alice reached its rate limit"]


def test_what_mails_say_leads_to_what_to_do(alice: Person, mint: Mint, watch: Watch) -> None:
    minted = mint("Ünlü <b>key</b>", environment="live", expires_at=now() + 6 * DAY)
    age(minted, 100 * DAY)
    limit(alice, 1)
    spent(alice.workspace_id, alice.workspace_id, 10**9)
    provider_keys.save(alice.workspace, "openai", Secret("sk-" + "a" * 30), actor=alice.actor, check=False)
    with transaction() as session:
        session.execute(update(ProviderKey).values(state="invalid", state_words="Incorrect <i>key</i>."))
    keep([call(owner_of(minted), now(), address="203.0.113.1")])
    usage_watch.look()
    keep([call(owner_of(minted), now(), address="203.0.113.2", client="<script>")])
    keep([call(owner_of(minted), now(), code="rate_limit_exceeded", status=429)])
    for look in (key_notices.tell_of_expiry, key_notices.tell_of_rotation, spending_notices.look):
        look()
    provider_notices.look()
    usage_watch.look()
    found = {mail.subject: mail for mail in mails()}
    assert len(found) == 6
    key_id = minted.key.id
    links = [f"/keys/{key_id}/edit", f"/keys/{key_id}/rotate", "/usage/limits", "/keys/providers/openai/update"]
    links += ["/usage?range=24h", f"/keys/{key_id}"]
    for mail in found.values():
        assert any(link in mail.text for link in links), mail.subject
        assert any(link in mail.html for link in links), mail.subject
        assert "<b>key</b>" not in mail.html
        assert "<script>" not in mail.html
        assert "<i>key</i>" not in mail.html
        assert minted.secret.reveal() not in mail.text + mail.html


def test_what_was_told_long_ago_is_forgotten(alice: Person) -> None:
    notices.first_time(alice.workspace_id, "key_expiring", "key_1", "x")
    notices.forget_old()
    assert len(db.session.scalars(select(Notice)).all()) == 1
    with time_machine.travel(now() + 401 * DAY, tick=True):
        notices.forget_old()
    assert db.session.scalars(select(Notice)).all() == []


# ---- What a person can live without


def test_who_has_switched_a_notice_off_gets_none_and_others_do(alice: Person, mint: Mint) -> None:
    usage_watch.look()
    other = make_person("ben@northwind.example")
    join(other, alice, Role.ADMIN)
    kept = [choice.name for choice in notice_choices.CHOICES if choice.name != "rate_limit"]
    notice_choices.choose(db.session.get_one(User, alice.user_id), kept)
    limited = {"code": "rate_limit_exceeded", "status": 429}
    keep([call(owner_of(mint("Server")), now(), **limited)])
    usage_watch.look()
    assert told() == [(other.email, "alice reached its rate limit")]
    assert len(events("rate_limit.reached")) == 1
    with pytest.raises(InvalidInput):
        notice_choices.choose(db.session.get_one(User, alice.user_id), ["rate_limit", "sign_in"])
    assert notice_choices.wanted(db.session.get_one(User, alice.user_id)) == kept


def test_each_mail_is_a_choice_or_always_comes() -> None:
    """A new mail has to be put into one of the two."""
    always = {
        "access_asked",
        "access_declined",
        "access_granted",
        "account",
        "invitation",
        "key_found",
        "member_removed",
        "role_changed",
        "security_notice",
        "workspace_deleted",
    }
    optional = [template for choice in notice_choices.CHOICES for template in choice.templates]
    written = {path.stem for path in (ROOT / "templates" / "mail").glob("[!_]*.txt")}
    assert sorted([*optional, *always]) == sorted(written)
