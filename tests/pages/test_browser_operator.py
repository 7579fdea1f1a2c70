"""Contact sales and the operator's console in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from extensions import db
from models.base import transaction
from services import access_requests
from services.actor import SYSTEM
from services.keys import Minted
from tests.pages import test_browser
from tests.pages.looks import assert_looks_right
from tests.pages.test_browser import sign_in
from tests.pages.test_frame import OPERATOR_PATHS, make_operator
from tests.people import Person, make_person

Mint = Callable[..., Minted]
opened = test_browser.opened


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: what a browser adds does not depend on the database."""
    return one_database_url


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_from_the_request_to_the_key_list(opened: Callable[..., Page], script: bool) -> None:
    erin, olga = make_person("erin@new.example"), make_operator()
    customer, operator = opened(390, java_script_enabled=script), opened(java_script_enabled=script)
    sign_in(customer, erin)
    customer.goto("/keys")
    customer.get_by_role("button", name="Contact sales").click()
    expect(customer.get_by_role("alert")).to_contain_text("Say in a sentence what you will use the API for")
    customer.get_by_label("What will you use the API for?").fill("A bot that answers.")
    customer.get_by_label("Requests per minute at your busiest").select_option("100 to 1,000")
    expect(customer.get_by_label("Reply to")).to_have_value(erin.email)
    customer.get_by_role("button", name="Contact sales").dblclick()
    expect(customer.get_by_role("heading", name="We have your request")).to_be_visible()
    expect(customer).to_have_url(re.compile("/keys$"))

    sign_in(operator, olga)
    operator.locator(".topbar summary").click()
    operator.get_by_role("link", name="Operator console").click()
    expect(operator.get_by_role("heading", level=1)).to_have_text("Access requests")
    operator.get_by_role("link", name="erin").click()
    operator.get_by_label("About the plan").fill("Renewed on 1 March 2027.")
    operator.get_by_role("button", name="Grant Agency").click()
    expect(operator.get_by_role("status").filter(has_text="erin is on Agency.")).to_be_visible()
    expect(operator.get_by_role("heading", name="No open requests")).to_be_visible()

    customer.reload()
    expect(customer.get_by_role("heading", name="No API keys yet")).to_be_visible()
    customer.get_by_role("link", name="Create New API Key").click()
    customer.get_by_label("Name", exact=True).fill("Production Server")
    customer.get_by_role("button", name="Create key").click()
    expect(customer.get_by_role("heading", level=1)).to_have_text("Save your new key")
    customer.goto("/plan")
    expect(customer.get_by_text("Renewed on 1 March 2027.")).to_be_visible()
    db.session.rollback()
    assert access_requests.decided().total == 1


def visits(customer: Page, operator: Page, alice: Person, mint: Mint) -> Iterator[tuple[str, Page]]:
    """Lead two windows through every page of requests and of the console; yields each while it is open."""
    mint("Production Server")
    erin, long = make_person("erin@new.example"), "an-address-that-is-rather-long-for-a-phone@northwind.example"
    sign_in(customer, erin)
    for path in ("/plan", "/plan/request", "/keys"):
        customer.goto(path)
        yield path, customer
    customer.get_by_role("button", name="Contact sales").click()
    expect(customer.get_by_role("alert")).to_be_visible()
    yield "gate, refused", customer
    customer.get_by_label("What will you use the API for?").fill("One line.\n" + "x" * 300)
    customer.get_by_label("Reply to").fill(long)
    customer.get_by_role("button", name="Contact sales").click()
    expect(customer.get_by_role("heading", name="We have your request")).to_be_visible()
    yield "gate, asked", customer
    # What the window has sent is read afresh.
    db.session.rollback()
    access_requests.decline(1, answer="Not yet.\n" + "y" * 300, actor=SYSTEM)
    customer.goto("/keys")
    yield "gate, declined", customer
    access_requests.ask(erin.workspace, use="x" * 400, volume="more", reply_to=long, actor=erin.actor)
    customer.goto("/plan")
    yield "plan, with a history", customer

    with transaction():
        access_requests.get(1).workspace.plan_words = "z" * 300
    sign_in(operator, make_operator())
    operator.locator(".topbar summary").click()
    yield "operator's menu", operator
    paths = [*OPERATOR_PATHS, "requests/1", "requests/2"]
    paths += [f"workspaces/{alice.workspace_id}", f"workspaces/{alice.workspace_id}/plan"]
    paths += [f"people/{alice.user_id}", f"people/{alice.user_id}/close", "mail/nothing"]
    for path in paths:
        operator.goto(f"/operator/{path}")
        yield path, operator
    operator.goto("/operator/mail")
    operator.locator("tbody a").first.click()
    yield "message", operator
    operator.goto("/operator/requests/2")
    operator.get_by_role("button", name="Decline", exact=True).click()
    expect(operator.get_by_role("alert")).to_be_visible()
    yield "decline, refused", operator
    operator.goto(f"/operator/workspaces/{alice.workspace_id}/plan")
    operator.get_by_label("Plan", exact=True).select_option("starter")
    operator.get_by_label("Reason").fill("Not paid.")
    operator.get_by_role("button", name="Set plan").click()
    expect(operator.get_by_role("button", name="Change to Starter")).to_be_visible()
    yield "downgrade", operator


@pytest.mark.looks
@pytest.mark.timeout(400)
def test_axe_finds_nothing_and_no_page_scrolls_sideways(opened: Callable[..., Page], alice: Person, mint: Mint) -> None:
    for name, window in visits(opened(), opened(), alice, mint):
        assert_looks_right(window, name)
