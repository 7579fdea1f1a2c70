"""The pages of provider keys: add, test, update and delete them; no page ever holds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from flask import Flask

from extensions import db
from models import AuditEvent, ProviderKey, UsageRecord
from models.base import new_id, now, transaction
from services import keys, provider_keys
from services.parts import parts
from services.provider_keys import note_outcome
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person

PROVIDERS = "/keys/providers"


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
    }


@pytest.fixture
def owner(owner: Visitor, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    """Alice at her browser; every page she sees is searched for the keys she typed."""
    seen: list[str] = []
    read = Visitor._read

    def reading(self: Visitor, answer: object) -> Html:
        page = read(self, answer)  # type: ignore[arg-type]
        seen.append(page.source)
        return page

    monkeypatch.setattr(Visitor, "_read", reading)
    yield owner
    for key in (provider.good_key, provider.openai_key, provider.broke_key, "sk-wrong-key-0123456789"):
        for part in (key[:10], key[len(key) // 2 :], key[-6:]):
            assert not any(part in source for source in seen)


def add(visitor: Visitor, provider_name: str, key: str, **more: str) -> Html:
    return visitor.submit(f"{PROVIDERS}/new", provider=provider_name, key=key, **more)


def row_of(person: Person, name: str = "openai") -> ProviderKey | None:
    db.session.rollback()
    return provider_keys.find(person.workspace, name)


def opened(person: Person, name: str = "openai") -> str:
    return provider_keys.unseal(provider_keys.connected(person.workspace_id)[name]).reveal()


def save(person: Person, key: str, name: str = "openai") -> None:
    provider_keys.save(person.workspace, name, Secret(key), actor=person.actor, check=False)


def test_a_key_is_added_tested_updated_and_deleted(owner: Visitor, alice: Person, provider: FakeProvider) -> None:
    page = owner.open(PROVIDERS)
    assert "Connect OpenAI or OpenRouter to get answers from their models. You pay them directly." in page.text
    assert f"{PROVIDERS}/new" in page.links

    page = add(owner, "openai", f" {provider.good_key} \n", label="Team account")
    assert owner.path == PROVIDERS
    assert "The OpenAI key is saved. It works." in page.text
    assert "OpenAI Team account Verified" in page.text
    assert f"by {alice.email} Last check Just now Spend this month $0.00" in page.text
    assert opened(alice) == provider.good_key

    provider.fault = "402"
    page = owner.post_by_hand(f"{PROVIDERS}/openai/test")
    assert "The OpenAI key was tested. Below stands what was found." in page.text
    assert "This OpenAI key works, but the account has no credit. Add credit at OpenAI." in page.text
    assert "Out of credit" in page.text
    provider.fault = None
    page = owner.post_by_hand(f"{PROVIDERS}/openai/test")
    assert "OpenAI accepts the key." in page.text
    assert "no credit" not in page.text

    page = owner.open(f"{PROVIDERS}/openai/update")
    assert ("label", "Team account") in page.main_form.fields
    assert ("key", "") in page.main_form.fields
    page = owner.send(page, key=provider.openai_key, label="Another")
    assert "OpenAI Another Verified" in page.text
    assert opened(alice) == provider.openai_key

    page = owner.open(f"{PROVIDERS}/openai/delete")
    assert page.first("h1") == "Delete the OpenAI key?"
    assert (
        "It is removed from our storage at once. It still exists at OpenAI: revoke it there if you no longer need it."
    ) in page.text
    page = owner.send(page)
    assert "The OpenAI key is deleted." in page.text
    assert provider_keys.connected(alice.workspace_id) == {}
    found = db.session.query(AuditEvent).filter(AuditEvent.action.like("provider_key:%")).order_by(AuditEvent.id)
    assert [(entry.action, entry.object_name, entry.actor_name) for entry in found] == [
        (f"provider_key:{act}", "OpenAI", alice.email) for act in ("add", "replace", "delete")
    ]


def test_openrouters_credit_is_shown(owner: Visitor, provider: FakeProvider) -> None:
    page = add(owner, "openrouter", provider.good_key)
    assert "Credit left $8.75 of the key’s limit, at the last check" in page.text


def test_a_key_the_provider_refuses_is_said_at_its_field(owner: Visitor, alice: Person, provider: FakeProvider) -> None:
    save(alice, provider.good_key)
    refusals = {
        "": "Paste a key first.",
        "  \n": "Paste a key first.",
        "two words": "This is not a provider key. Check that you copied exactly the key",
        "sk-wrong-key-0123456789": (
            "OpenAI does not accept this key. It was not saved. Check that you copied all of it and that it has not "
            "been revoked."
        ),
        provider.broke_key: (
            "This OpenAI key works, but the account has no credit. It was not saved. Add credit at OpenAI, then save "
            "again."
        ),
    }
    for path in ("new", "openai/update"):
        for key, sentence in refusals.items():
            page = owner.submit(f"{PROVIDERS}/{path}", key=key, label="Typed")
            assert owner.status == 422
            assert page.text.count(sentence) == 2
            assert "There is a problem" in page.text
            assert page.first("title").startswith("Error: ")
            assert ("label", "Typed") in page.main_form.fields
            assert opened(alice) == provider.good_key


def test_an_unreachable_provider_offers_to_try_again_or_to_save_without_a_check(
    owner: Visitor, alice: Person, provider: FakeProvider
) -> None:
    page = owner.open(f"{PROVIDERS}/new")
    assert "Save without a check" not in page.text
    with provider.outage():
        page = owner.send(page, key=provider.good_key, label="Typed")
        assert owner.status == 503
        assert (
            "We could not reach OpenAI (the connection failed). The key is neither right nor wrong for now."
        ) in page.text
        assert "Try again" in page.text
        assert ("label", "Typed") in page.main_form.fields
        assert row_of(alice) is None
        owner.send(page, key=provider.good_key)
        assert owner.status == 503
        page = owner.send(page, button=("unchecked", "1"), key=provider.good_key)
    assert "The OpenAI key is saved without a check." in page.text
    assert "Not verified" in page.text
    assert "Last check Not checked yet" in page.text
    assert opened(alice) == provider.good_key
    page = owner.post_by_hand(f"{PROVIDERS}/openai/test")
    assert "Verified" in page.text


def test_sending_a_form_twice_saves_once(owner: Visitor, alice: Person, provider: FakeProvider) -> None:
    page = owner.open(f"{PROVIDERS}/new")
    owner.send(page, key=provider.good_key)
    first = row_of(alice)
    assert first is not None
    record = first.sealed
    again = owner.send(page, key=provider.good_key)
    assert "The OpenAI key is saved. It works." in again.text
    second = row_of(alice)
    assert second is not None
    assert second.sealed == record


def test_what_turned_bad_later_is_said_with_the_providers_words(
    owner: Visitor, alice: Person, provider: FakeProvider
) -> None:
    save(alice, provider.good_key)
    said = {
        "invalid": "refused our last call at {}: Their words. Calls to its models fail until you update the key.",
        "no_credit": "This OpenAI key works, but the account has no credit. Add credit at OpenAI.",
        "restricted": "OpenAI does not let this key do everything. It said: Their words.",
        "rate_limited": "OpenAI limits the rate of this key at the moment. It passes by itself.",
        "unreachable": "We could not reach OpenAI (Their words). The key is neither right nor wrong for now.",
        "cannot_decrypt": "This key cannot be decrypted. Calls to OpenAI fail until you update it with the key itself.",
    }
    for state, words in said.items():
        note_outcome(alice.workspace_id, provider_keys.connected(alice.workspace_id)["openai"], state, "Their words.")
        row = row_of(alice)
        assert row is not None
        assert row.state_seen_at is not None
        moment = (
            f"{row.state_seen_at:%a} {row.state_seen_at.day} {row.state_seen_at:%b %Y}, {row.state_seen_at:%H:%M} UTC"
        )
        assert words.format(moment) in owner.open(PROVIDERS).text
        assert owner.open("/overview").text.count("OpenAI") >= 1


def test_a_row_that_cannot_be_read_breaks_no_page(
    owner: Visitor, alice: Person, provider: FakeProvider, mint: Callable[..., keys.Minted]
) -> None:
    mint("A key")
    save(alice, provider.good_key)
    row = row_of(alice)
    assert row is not None
    row.sealed = "nothing"
    row.state = "unverified"
    db.session.commit()
    page = owner.post_by_hand(f"{PROVIDERS}/openai/test")
    assert "Cannot be read" in page.text
    for path in (PROVIDERS, "/keys", "/overview", f"{PROVIDERS}/openai/update", f"{PROVIDERS}/openai/delete"):
        owner.open(path)
        assert owner.status == 200
    page = owner.submit(f"{PROVIDERS}/openai/update", key=provider.openai_key)
    assert "Verified" in page.text


def test_only_owners_and_admins_change_provider_keys(
    viewer: Visitor, developer: Visitor, alice: Person, provider: FakeProvider
) -> None:
    for visitor in (viewer, developer):
        page = visitor.open(PROVIDERS)
        assert f"{PROVIDERS}/new" not in page.links
        assert f"{PROVIDERS}/new" not in visitor.open("/keys").links
    save(alice, provider.good_key)
    for visitor in (viewer, developer):
        page = visitor.open(PROVIDERS)
        assert "OpenAI" in page.text
        assert not [link for link in page.links if link.startswith(f"{PROVIDERS}/")]
        assert not [form for form in page.forms if form.action.startswith(PROVIDERS)]
        for path in ("new", "openai/update", "openai/delete"):
            page = visitor.open(f"{PROVIDERS}/{path}")
            assert visitor.status == 403
            assert f"You need the admin role for this. Ask {alice.email} (owner)." in page.text
        for path in ("new", "openai/update", "openai/delete", "openai/test"):
            visitor.post_by_hand(f"{PROVIDERS}/{path}", provider="openai", key=provider.openai_key, unchecked="1")
            assert visitor.status == 403
    assert opened(alice) == provider.good_key
    assert provider.requests == []


def test_another_workspaces_keys_and_unknown_providers_are_not_found(
    owner: Visitor, alice: Person, charlie: Person, provider: FakeProvider
) -> None:
    save(charlie, provider.good_key)
    for name in ("openai", "closedai"):
        for act in ("update", "delete", "test"):
            owner.post_by_hand(f"{PROVIDERS}/{name}/{act}", key=provider.openai_key)
            assert owner.status == 404
    assert opened(charlie) == provider.good_key
    page = owner.submit(f"{PROVIDERS}/new", provider="closedai", key=provider.openai_key)
    assert owner.status == 422
    assert "There is no provider “closedai”" in page.text
    page = owner.submit(f"{PROVIDERS}/new", provider=None, key=provider.openai_key)
    assert "Choose a provider" in page.text


def test_the_list_of_api_keys_leads_to_adding_a_provider_key(
    owner: Visitor, mint: Callable[..., keys.Minted], alice: Person, provider: FakeProvider
) -> None:
    mint("A key")
    assert f"{PROVIDERS}/new" in owner.open("/keys").links
    page = owner.open(f"{PROVIDERS}/new?provider=openrouter")
    assert ("provider", "openrouter") in page.main_form.fields
    assert page.text.count("Where do I find it?") == 2


def test_the_spend_of_the_month_is_added_up_by_provider(
    owner: Visitor, alice: Person, mint: Callable[..., keys.Minted], provider: FakeProvider
) -> None:
    save(alice, provider.good_key)
    minted = mint("A key")
    spent(minted, "openai", 1_250_000_000)
    spent(minted, "openai", 4_000_000)
    spent(minted, "openai", None)
    spent(minted, "openai", None, status=502)
    spent(minted, "openrouter", 7_000_000_000)
    spent(minted, "openai", 9_000_000_000, days_ago=40)
    assert "Spend this month $1.25, and 1 call of unknown cost" in owner.open(PROVIDERS).text


def spent(minted: keys.Minted, provider: str, cost: int | None, *, status: int = 200, days_ago: int = 0) -> None:
    at = now() - timedelta(days=days_ago)
    with transaction() as session:
        session.add(
            UsageRecord(
                request_id=new_id("req"),
                workspace_id=minted.key.workspace_id,
                api_key_id=minted.key.id,
                secret_id=minted.key.secrets[0].id,
                environment="live",
                endpoint="chat/completions",
                started_at=at,
                ended_at=at,
                status=status,
                streamed=False,
                provider=provider,
                cost_nano_usd=cost,
            )
        )


def test_a_provider_that_is_no_longer_offered_can_still_be_deleted(
    app: Flask, owner: Visitor, alice: Person, provider: FakeProvider
) -> None:
    save(alice, provider.good_key, "openrouter")
    del parts().providers["openrouter"]
    page = owner.open(PROVIDERS)
    assert "This portal no longer offers openrouter, so the key is not used." in page.text
    page = owner.submit(f"{PROVIDERS}/openrouter/delete")
    assert "The openrouter key is deleted." in page.text
