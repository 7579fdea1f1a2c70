"""Without API access: the gate, and keys that are paused."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask

from services import keys, workspaces
from services.keys import Minted
from services.permissions import Role
from tests.pages.visitor import Visitor
from tests.people import Person, join, make_person

Mint = Callable[..., Minted]


def set_plan(person: Person, plan: str) -> None:
    workspaces.set_plan(person.workspace, plan, requests_per_minute=None, actor=person.actor)


def starter(app: Flask) -> tuple[Visitor, Person]:
    person = make_person("erin@solo.example")
    return Visitor(app).sign_in(person), person


def test_the_gate_says_what_the_plan_gives_and_what_it_costs(app: Flask) -> None:
    visitor, _ = starter(app)
    page = visitor.open("/keys")
    assert visitor.status == 200
    for words in (
        "API keys come with the Agency plan",
        "Your workspace is on Starter.",
        "There is no online checkout.",
        "$699 per month",
        "1,000 requests per minute",
        "What happens next",
    ):
        assert words in page.text
    assert "/keys/new" not in page.links


def test_only_owners_can_ask(app: Flask) -> None:
    _, person = starter(app)
    frank = make_person("frank@solo.example")
    join(frank, person, Role.ADMIN)
    page = Visitor(app).sign_in(frank).look_at(person).open("/keys")
    assert f"Only owners can ask for a plan. Yours: {person.email}." in page.text
    assert "Contact sales" not in page.text
    assert "A message you can copy" in page.text


def test_no_path_makes_a_key_without_the_plan(app: Flask) -> None:
    visitor, person = starter(app)
    visitor.open("/keys/new")
    assert visitor.path == "/keys"
    page = visitor.post_by_hand(
        "/keys/new", name="forged", kind="secret", environment="test", preset="full", expires="90"
    )
    assert visitor.status == 403
    assert "API keys come with the Agency plan." in page.text
    assert keys.living(person.workspace) == []


def test_a_plan_takes_effect_at_once(app: Flask) -> None:
    visitor, person = starter(app)
    set_plan(person, "agency")
    page = visitor.open("/keys")
    assert "No API keys yet" in page.text
    assert "Contact sales" not in page.text
    assert "Upgrade" not in page.text


def test_after_a_downgrade_keys_are_listed_as_paused_and_can_be_deleted(
    owner: Visitor, alice: Person, mint: Mint
) -> None:
    minted = mint("Production Server")
    mint("Billing sync")
    set_plan(alice, "starter")
    page = owner.open("/keys")
    assert "API access is paused. This workspace is on Starter. Your 2 keys are kept but answer error 403." in page.text
    assert "They work again as soon as the plan is Agency. Contact sales" in page.text
    assert page.text.count("Paused by plan") == 2
    assert "/keys/new" not in page.links
    owner.submit(f"/keys/{minted.key.id}/delete")
    assert owner.path == f"/keys/{minted.key.id}/deleted"
    assert "Your 1 key is kept but answers error 403. It works again" in owner.open("/keys").text
    set_plan(alice, "agency")
    assert "Active" in owner.open("/keys").text


def test_the_last_key_gone_the_gate_is_back(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = mint()
    set_plan(alice, "starter")
    owner.submit(f"/keys/{minted.key.id}/delete")
    assert "API keys come with the Agency plan" in owner.open("/keys").text
