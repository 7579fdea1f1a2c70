"""The page that shows which model would be chosen for a prompt, and why."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from services.gateway import brain_rules
from services.parts import parts
from tests.neighbours.fake_provider import FakeProvider
from tests.pages.looks import assert_looks_right
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person

PAGE = "/playground/route"
CODE = "Fix this Python traceback: KeyError"


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the page reads one row."""
    return one_database_url


def connect(alice: Person, name: str) -> None:
    from tests.pages.test_frame import connect as connected

    connected(alice, name, "valid")


def test_a_viewer_sees_the_choice_and_what_led_to_it(viewer: Visitor, alice: Person) -> None:
    connect(alice, "openai")
    page = viewer.submit(PAGE, prompt=CODE)
    assert viewer.status == 200
    assert "gpt-4o is the first connected model for coding" in page.text
    for words in ("an error of a program", "traceback", "Chosen gpt-4o at OpenAI", "OpenRouter: not connected"):
        assert words in page.text
    assert "A call would be refused" not in page.text


def test_without_a_provider_it_says_so_and_what_would_be_chosen(owner: Visitor) -> None:
    page = owner.submit(PAGE, prompt=CODE)
    assert "A call would be refused now. No provider key is connected." in page.text
    assert "gpt-4o is the first connected model for coding" in page.text


def test_the_system_message_counts_too(owner: Visitor) -> None:
    page = owner.submit(
        PAGE, prompt="hello", system="You classify the sentiment of messages. Reply with only one word."
    )
    assert "budget" in page.text
    assert "system message" in page.text


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("", "Enter a prompt"), ("  \n ", "Enter a prompt"), ("x" * 100_001, "at most 100,000 characters")],
)
def test_a_prompt_that_cannot_be_tried_is_refused_at_its_field(owner: Visitor, prompt: str, words: str) -> None:
    page = owner.submit(PAGE, prompt=prompt)
    assert owner.status == 422
    assert "There is a problem" in page.text
    assert words in page.text


def test_what_is_typed_is_shown_as_text_only(owner: Visitor) -> None:
    owner.submit(PAGE, prompt="<script>alert(1)</script> fix this code")
    assert owner.answer is not None
    assert "<script>alert" not in owner.answer.get_data(as_text=True)


def test_every_rule_can_be_read(owner: Visitor) -> None:
    page = owner.open(PAGE)
    rules: brain_rules.Rules = parts().brain
    for task in rules.tasks.values():
        for signal in task.signals:
            assert signal.name in page.text.lower()
            assert signal.words[0].replace("  ", " ") in page.text


def test_a_stranger_is_sent_to_sign_in(visitor: Visitor) -> None:
    visitor.open(PAGE)
    assert visitor.path == "/sign-in"


def test_no_provider_is_called(owner: Visitor, provider: FakeProvider) -> None:
    owner.submit(PAGE, prompt=CODE)
    assert provider.requests == []


@pytest.mark.looks
def test_axe_finds_nothing_and_the_page_does_not_scroll_sideways(page: Page, site: str, alice: Person) -> None:
    page.goto(f"{site}/sign-in")
    page.get_by_label("E-mail address").fill(alice.email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.goto(f"{site}{PAGE}")
    page.get_by_role("textbox", name="Prompt").fill(CODE)
    page.get_by_role("button", name="Show the choice").click()
    page.get_by_text("Coding", exact=True).click()
    assert_looks_right(page, "a choice")
