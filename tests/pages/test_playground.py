"""The playground: a call by hand goes the way of every call, and the page says what came of it."""

from __future__ import annotations

import ast
import html
import json
import re
import shlex
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from extensions import db
from models import SpendingHold, UsageRecord
from models.base import transaction
from services import provider_keys, spending, workspaces
from services.actor import SYSTEM
from services.gateway.brain import ALIASES
from services.secret import Secret
from tests.neighbours.fake_provider import OPENAI_KEY, FakeProvider
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested on both."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
        "ARKA_PROVIDER_READ_SECONDS": "2",
    }


@pytest.fixture
def connected(alice: Person) -> None:
    provider_keys.save(alice.workspace, "openai", Secret(OPENAI_KEY), actor=alice.actor)


def starter(person: Person) -> None:
    workspaces.set_plan(person.workspace, "starter", requests_per_minute=None, actor=SYSTEM)


def rows() -> list[UsageRecord]:
    return list(db.session.scalars(select(UsageRecord).order_by(UsageRecord.id)))


def blocks(source: str) -> dict[str, str]:
    """The blocks of code on a page by their names."""
    found = re.findall(r'<pre class="codebox"[^>]*aria-label="(\w+)">(.*?)</pre>', source, re.DOTALL)
    return {name: html.unescape(text) for name, text in found}


def typed(page: Html) -> dict[str, str]:
    """What stands in the form; a browser drops the line break that a text area begins with."""
    return {name: value.removeprefix("\r\n") for name, value in page.main_form.fields}


def body_in(source: str) -> dict[str, Any]:
    words = shlex.split(blocks(source)["cURL"].replace("\\\n", ""))
    body: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    return body


def test_a_live_call_goes_to_the_provider_and_is_metered(
    owner: Visitor, alice: Person, connected: None, provider: FakeProvider
) -> None:
    page = owner.submit("/playground", model="gpt-4o", system="Be brief.", message="Hello, world!")
    assert owner.status == 200
    asked = provider.requests[-1]
    assert asked.json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, world!"},
    ]
    (row,) = rows()
    assert (row.api_key_id, row.secret_id, row.user_id) == (None, None, alice.user_id)
    assert (row.workspace_id, row.environment, row.provider, row.model) == (
        alice.workspace_id,
        "live",
        "openai",
        "gpt-4o",
    )
    assert (row.status, row.code, row.endpoint) == (200, None, "chat/completions")
    assert row.input_tokens
    assert row.output_tokens
    assert row.ended_at is not None
    assert owner.answer is not None
    assert row.request_id == owner.answer.headers["X-Request-Id"]
    for words in (row.request_id, "gpt-4o", "OpenAI", f"{row.input_tokens:,} in, {row.output_tokens:,} out", "Cost $0"):
        assert words in page.text
    assert "Simulated" not in page.text
    # What was typed stays, and the figures show it as the playground's.
    assert typed(page)["message"] == "Hello, world!"
    assert "Playground Requests 1" in owner.open("/usage").text


def test_on_starter_the_simulator_answers_and_says_so(owner: Visitor, alice: Person, provider: FakeProvider) -> None:
    starter(alice)
    assert "The simulator answers here" in owner.open("/playground").text
    page = owner.submit("/playground", model="gpt-4o", message="Hello, world!")
    assert "This answer comes from the simulator" in page.text
    assert "Simulated" in page.text
    assert provider.requests == []
    (row,) = rows()
    assert (row.environment, row.provider, row.cost_nano_usd) == ("test", "simulator", 0)


def test_a_refusal_is_a_sentence_with_code_and_request_id(owner: Visitor, alice: Person) -> None:
    page = owner.submit("/playground", model="gpt-4o", system="kept too", message="kept")
    assert owner.status == 400
    (row,) = rows()
    assert row.code == "provider_not_connected"
    for words in ("No answer.", "No provider key is connected", row.code, row.request_id):
        assert words in page.text
    fields = typed(page)
    assert (fields["model"], fields["system"], fields["message"]) == ("gpt-4o", "kept too", "kept")


def test_a_failure_of_the_provider_is_told_in_its_words(
    owner: Visitor, connected: None, provider: FakeProvider
) -> None:
    provider.fault = "503"
    page = owner.submit("/playground", model="gpt-4o", message="kept")
    assert owner.status >= 500
    assert "overloaded" in page.text
    assert OPENAI_KEY not in page.source
    assert rows()[-1].code in page.text


def test_it_counts_against_the_limit_that_all_keys_share(owner: Visitor, alice: Person, connected: None) -> None:
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=1, actor=SYSTEM)
    owner.submit("/playground", model="gpt-4o", message="first")
    assert owner.status == 200
    page = owner.submit("/playground", model="gpt-4o", message="second")
    assert owner.status == 429
    assert "rate_limit_exceeded" in page.text
    assert typed(page)["message"] == "second"
    assert [row.code for row in rows()] == [None, "rate_limit_exceeded"]


def test_a_refused_call_is_explained_by_its_request_id(owner: Visitor, alice: Person, connected: None) -> None:
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=1, actor=SYSTEM)
    for message in ("first", "second"):
        owner.submit("/playground", model="gpt-4o", message=message)
    let_in, refused = rows()
    page = owner.open(f"/keys/refusals?request_id={refused.request_id}")
    assert owner.status == 200
    for words in ("Refused at one check", "Is within the rate: no.", "None: asked at the playground"):
        assert words in page.text
    assert "Not reached Is within the spending limits" in page.text
    assert "Has the form of a key" not in page.text
    assert "let in and answered" in owner.open(f"/keys/refusals?request_id={let_in.request_id}").text


def test_what_nobody_foresaw_is_a_failed_call_that_holds_no_money(
    app: Flask, owner: Visitor, alice: Person, connected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spending.set_limits(
        alice.workspace,
        daily_nano_usd=10**9,
        monthly_nano_usd=None,
        allow_unknown_price=False,
        actor=alice.actor,
    )

    def slip(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("services.playground._text_of", slip)
    app.testing = False
    owner.submit("/playground", model="gpt-4o", message="Hello")
    assert owner.status == 500
    (row,) = rows()
    assert (row.status, row.code, row.ended_at is not None) == (500, "internal_error", True)
    assert db.session.scalar(select(func.count()).select_from(SpendingHold)) == 0


def test_the_simulator_has_a_limit_too(owner: Visitor, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.playground.SIMULATED_PER_MINUTE", 1)
    starter(alice)
    owner.submit("/playground", model="gpt-4o", message="first")
    owner.submit("/playground", model="gpt-4o", message="second")
    assert owner.status == 429


def test_a_spending_limit_stops_it(owner: Visitor, alice: Person, connected: None, provider: FakeProvider) -> None:
    with transaction():
        alice.workspace.monthly_limit_nano_usd = 0
    provider.requests.clear()
    page = owner.submit("/playground", model="gpt-4o", message="Hello")
    assert owner.status == 402
    assert "spending_limit_reached" in page.text
    assert provider.requests == []


def test_what_was_sent_already_is_not_sent_again(owner: Visitor, connected: None, provider: FakeProvider) -> None:
    form = owner.open("/playground")
    owner.send(form, model="gpt-4o", message="Hello")
    asked = len(provider.requests)
    page = owner.send(form, model="gpt-4o", message="Hello")
    assert "This was sent already" in page.text
    assert len(provider.requests) == asked
    assert len(rows()) == 1
    owner.send(page)
    assert len(rows()) == 2


def test_an_empty_message_is_a_fault_of_the_field(owner: Visitor) -> None:
    page = owner.submit("/playground", model="", message=" ")
    assert owner.status == 422
    assert "Write a message" in page.text
    assert "Enter a model" in page.text
    assert rows() == []


def test_viewers_may_look_but_not_send(viewer: Visitor, developer: Visitor, connected: None) -> None:
    page = viewer.open("/playground")
    assert "Viewers may look" in page.text
    assert not any(form.action == "/playground" for form in page.forms)
    viewer.post_by_hand("/playground", model="gpt-4o", message="Hello")
    assert viewer.status == 403
    assert rows() == []
    developer.submit("/playground", model="gpt-4o", message="Hello")
    assert developer.status == 200


NASTY = """It's "quoted", `echo no`, $(no), \\n and </pre><script>alert(1)</script>\né 💥"""


def test_the_code_sends_what_was_sent(owner: Visitor, connected: None, provider: FakeProvider) -> None:
    page = owner.submit("/playground", model="gpt-4o", system="Be brief.", message=NASTY)
    sent = provider.requests[-1].json
    assert body_in(page.source) == sent
    python = ast.parse(blocks(page.source)["Python"])
    values = {
        keyword.arg: ast.literal_eval(keyword.value)
        for node in ast.walk(python)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("model", "messages")
    }
    assert values == sent
    script = blocks(page.source)["JavaScript"]
    assert json.dumps(sent["messages"][1]["content"], ensure_ascii=False) in script
    assert "<script>alert" not in page.source
    assert all("ARKA_API_KEY" in block for block in blocks(page.source).values())
    assert all("/v1" in block for block in blocks(page.source).values())


def test_the_quickstart_has_the_portals_own_address(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    environment |= {"ARKA_PUBLIC_URL": "http://portal.example:8080", "ARKA_BRAND": "Lumen", "ARKA_KEY_PREFIX": "lum"}
    owner = request.getfixturevalue("owner")
    page = owner.open("/quickstart")
    assert "http://portal.example:8080/v1/chat/completions" in page.text
    assert "$LUM_API_KEY" in page.text
    assert body_in(page.source)["model"] == "auto"
    assert "/keys/new" in page.links


def test_the_playground_begins_with_the_model_that_chooses(owner: Visitor) -> None:
    assert dict(owner.open("/playground").main_form.fields)["model"] == ALIASES[0]


def test_nobody_outside_the_workspace_is_asked_for(app: Flask, charlie: Person, connected: None) -> None:
    stranger = Visitor(app).sign_in(charlie)
    stranger.submit("/playground", model="gpt-4o", message="Hello")
    assert stranger.status == 400
    assert {row.workspace_id for row in rows()} == {charlie.workspace_id}
