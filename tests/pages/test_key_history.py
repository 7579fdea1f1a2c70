"""What a key did, attempts after its end, and why a call was refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pytest
from flask import Flask

from blueprints.charts import day_chart
from models.base import now
from services import keys
from services.keys import Minted
from tests.pages.test_frame import note_refusal
from tests.pages.visitor import Visitor
from tests.people import Person, bearer

Mint = Callable[..., Minted]
Use = Callable[..., None]


def test_the_last_days_and_calls_of_a_key(owner: Visitor, mint: Mint, use: Use) -> None:
    minted = mint("Production Server")
    assert "Last 30 days" not in owner.open(f"/keys/{minted.key.id}").text
    use(minted, times=60, days_ago=1)
    refused = note_refusal(minted)
    page = owner.open(f"/keys/{minted.key.id}")
    for words in ("61 requests, 1 failed", "at most 60 on a day", "The last 50, the latest first", refused):
        assert words in page.text
    day = now() - timedelta(days=1)
    assert f"{day.day} {day:%b %Y} 60 0" in page.text
    assert f"/keys/refusals?request_id={refused}" in page.links
    assert page.source.count("insufficient_scope") == 1


def test_attempts_after_the_end_are_listed(owner: Visitor, mint: Mint) -> None:
    minted = mint("gone")
    page = owner.submit(f"/keys/{minted.key.id}/delete")
    assert "Attempts since: none." in page.text
    answer = owner.one_request("GET", "/v1/models", headers=bearer(minted.secret))
    assert answer.status_code == 403
    page = owner.open(f"/keys/{minted.key.id}/deleted")
    assert "Attempts since: 1." in page.text
    assert answer.headers["X-Request-Id"] in page.text


def test_a_refusal_is_explained(owner: Visitor, mint: Mint) -> None:
    minted = mint("reader", scopes=["usage:read"])
    answer = owner.one_request("GET", "/v1/models", headers=bearer(minted.secret))
    assert answer.status_code == 403
    page = owner.open(f"/keys/refusals?request_id={answer.headers['X-Request-Id']}")
    for words in ("Refused at one check", "Has the scope that is needed: no.", "Create a key that has models:read."):
        assert words in page.text
    text = page.text
    assert text.index("Passed Is not disabled") < text.index("Failed Has the scope that is needed")
    assert "Not reached Is within the rate" in text
    assert f"/keys/{minted.key.id}" in page.links


def test_a_key_that_a_service_asked_about_is_explained_by_both_ids(owner: Visitor, mint: Mint) -> None:
    asker, asked = mint("service", scopes=["keys:read"]), mint("asked", scopes=["usage:read"])
    question = {"key": asked.secret.reveal(), "scope": "tasks:write"}
    answer = owner.one_request("POST", "/v1/keys/verify", headers=bearer(asker.secret), json=question)
    assert answer.get_json()["code"] == "insufficient_scope"
    (link,) = [link for link in owner.open(f"/keys/{asked.key.id}").links if "refusals?request_id" in link]
    for path in (link, f"/keys/refusals?request_id={answer.headers['X-Request-Id']}"):
        page = owner.open(path)
        assert owner.status == 200
        assert "Create a key that has tasks:write." in page.text
        assert f"/keys/{asked.key.id}" in page.links
    good = {"key": asked.secret.reveal()}
    answer = owner.one_request("POST", "/v1/keys/verify", headers=bearer(asker.secret), json=good)
    page = owner.open(f"/keys/refusals?request_id={answer.headers['X-Request-Id']}")
    assert "This call was let in and answered." in page.text


def test_a_call_that_was_let_in_says_so(owner: Visitor, mint: Mint) -> None:
    minted = mint("reader", scopes=["models:read"])
    answer = owner.one_request("GET", "/v1/models", headers=bearer(minted.secret))
    page = owner.open(f"/keys/refusals?request_id={answer.headers['X-Request-Id']}")
    assert "This call was let in and answered." in page.text
    assert "Failed" not in page.text


@pytest.mark.parametrize("typed", ["", "req_unknown", "nonsense", "<b>", "req_" + "x" * 99])
def test_an_unknown_request_id_is_told_at_the_field(owner: Visitor, typed: str) -> None:
    answer = owner.one_request("GET", "/keys/refusals", query_string={"request_id": typed})
    assert answer.status_code == 404
    assert "No call of this workspace has this request id." in answer.text
    assert "<b>" not in answer.text


def test_another_workspaces_call_is_unknown(app: Flask, mint: Mint, charlie: Person) -> None:
    refused = note_refusal(mint())
    stranger = Visitor(app).sign_in(charlie)
    page = stranger.open(f"/keys/refusals?request_id={refused}")
    assert stranger.status == 404
    assert "No call of this workspace has this request id." in page.text


def test_a_key_typed_as_a_request_id_is_not_shown_again(owner: Visitor, mint: Mint) -> None:
    secret = mint().secret.reveal()
    for typed in (secret, f"req_{secret}"):
        assert secret not in owner.open(f"/keys/refusals?request_id={typed}").source


def test_a_viewer_may_ask_too(viewer: Visitor, mint: Mint) -> None:
    refused = note_refusal(mint())
    viewer.open(f"/keys/refusals?request_id={refused}")
    assert viewer.status == 200


def test_attempts_before_the_end_are_not_counted(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = mint("gone", scopes=["models:read"])
    owner.one_request("GET", "/v1/models", headers=bearer(minted.secret))
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    assert "Attempts since: none." in owner.open(f"/keys/{minted.key.id}/deleted").text


@pytest.mark.parametrize(("highest", "top"), [(0, 2), (1, 2), (3, 4), (5, 10), (11, 20), (41, 100), (34_000, 40_000)])
def test_a_charts_lines_are_round_numbers(highest: int, top: int) -> None:
    days = [date(2026, 11, 1) + timedelta(days=number) for number in range(30)]
    chart = day_chart(days, [highest] + [0] * 29, 100)
    assert [line.number for line in chart.grid] == [0, top // 2, top]
    assert chart.bars[0].height == round(highest / top * 100, 1)
    assert all(bar.x >= 0 and bar.x + bar.width <= chart.width for bar in chart.bars)
    assert [bar.label for bar in chart.bars if bar.label][-1] == "today"
    assert [bar.part for bar in chart.bars].count(True) == 1
