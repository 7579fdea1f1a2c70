"""Usage & limits: the page, its file and the API tell the same figures, and those of the rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError

from blueprints import csv_lines
from blueprints.charts import bar_chart
from blueprints.template_tools import money, thousands
from models.base import now, transaction
from services import keys, usage, workspaces
from services.actor import SYSTEM
from services.keys import Minted
from services.money import as_usd, read_usd
from services.usage import DAY, PLAYGROUND, Figures
from tests.calls import Owner, added_up, call, keep, random_calls
from tests.neighbours.storage import KINDS
from tests.pages.visitor import Visitor
from tests.people import Person, bearer

Mint = Callable[..., Minted]


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind, unless a test asks for both: the services are tested on both."""
    return one_database_url


def of_key(minted: Minted) -> Owner:
    return Owner(minted.key.workspace_id, minted.key.id, minted.key.secrets[0].id)


def csv_rows(answer_text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer_text, newline="")))


def cells(figures: Figures) -> str:
    """What a row of a table says of its figures."""
    numbers = {
        "Requests": figures.requests,
        "Failed": figures.failed,
        "Input tokens": figures.input_tokens,
        "Output tokens": figures.output_tokens,
    }
    cost = "unknown" if figures.unknown and not figures.cost_nano_usd else money(figures.cost_nano_usd)
    return " ".join(f"{name} {thousands(number)}" for name, number in numbers.items()) + f" Cost {cost}"


def told(figures: dict[str, Any]) -> Figures:
    """The figures that the API tells."""
    names = ("requests", "failed", "rate_limited", "input_tokens", "cached_input_tokens", "output_tokens")
    nano_usd = int(figures["cost_usd"].replace(".", "").ljust(len(figures["cost_usd"].partition(".")[0]) + 9, "0"))
    return Figures(
        *(figures[name] for name in names), nano_usd, figures["unknown_cost_calls"], figures["estimated_calls"]
    )


def from_csv(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows of the file as the rows that they are of."""
    return [
        {
            "status": int(row["status"]),
            "code": row["code"] or None,
            **{name: int(row[name] or 0) for name in ("input_tokens", "cached_input_tokens", "output_tokens")},
            "cost_nano_usd": None if row["cost_usd"] in ("", "unknown") else read_usd(row["cost_usd"]),
            "ended_at": None if row["cost_usd"] == "" else "some time",
            "provider": row["provider"] or None,
            "estimated": row["estimated"] == "yes",
        }
        for row in rows
    ]


@pytest.mark.parametrize("one_database_url", KINDS, indirect=True)
def test_page_file_and_api_tell_the_figures_of_the_rows(
    owner: Visitor, alice: Person, charlie: Person, mint: Mint
) -> None:
    minted = [mint("Importer"), mint("Exporter"), mint("Theirs", owner=charlie)]
    owners = [*map(of_key, minted), Owner(alice.workspace_id, None, None)]
    rows = random_calls(owners, now() - 20 * DAY, now(), 300, seed=7)
    keep(rows)
    mine = [row for row in rows if row["workspace_id"] == alice.workspace_id and row["code"] != "invalid_api_key"]
    period = usage.last_days(14)
    for query, names in [
        ("", {}),
        (f"&key={minted[0].key.id}", {"api_key_id": minted[0].key.id}),
        (f"&key={PLAYGROUND}&provider=openai", {"api_key_id": None, "provider": "openai"}),
        ("&model=gpt-4o", {"model": "gpt-4o"}),
    ]:
        wanted = [
            row
            for row in mine
            if period.start <= row["started_at"] < period.end and all(row[name] == names[name] for name in names)
        ]
        expected = added_up(wanted)
        assert expected.requests > 0

        page = owner.open(f"/usage?range=14d{query}")
        assert f"Requests, 14 days {thousands(expected.requests)} " in page.text
        assert f"{thousands(expected.input_tokens)} in and {thousands(expected.output_tokens)} out" in page.text
        for key_id, name in [(minted[0].key.id, "Importer"), (minted[1].key.id, "Exporter"), (None, "Playground")]:
            of_this = [row for row in wanted if row["api_key_id"] == key_id]
            assert (f"{name} {cells(added_up(of_this))}" in page.text) == bool(of_this)
        for begin, end in period.parts():
            count = sum(begin <= row["started_at"] < end for row in wanted)
            assert f"{begin.day} {begin:%b %Y} {thousands(count)} " in page.text
        assert "Theirs" not in page.text

        file = owner.one_request("GET", f"/usage.csv?range=14d{query}")
        lines = csv_rows(file.text)
        assert sorted(line["request_id"] for line in lines) == sorted(row["request_id"] for row in wanted)
        in_file = added_up(from_csv(lines))
        assert in_file == expected

        header = bearer(mint(f"asker {query}"[:40], scopes=["usage:read"]).secret)
        asked = f"/v1/usage?from={period.start:%Y-%m-%d}&to={period.end:%Y-%m-%d}{query}"
        answer = owner.one_request("GET", asked, headers=header).json
        # The question itself is a call too, once it is answered; so is each one before.
        assert told(answer["total"]) == expected or query == ""
        for group in ("hour", "key", "model", "provider"):
            answer = owner.one_request("GET", f"{asked}&group_by={group}", headers=header).json
            summed = Figures()
            for part in answer["data"]:
                summed.add(told(part))
            assert summed == told(answer["total"])
            assert told(answer["total"]) == expected or query == ""


def test_the_file_is_not_kept_and_is_safe_to_open_in_a_spreadsheet(owner: Visitor, alice: Person, mint: Mint) -> None:
    minted = mint("=HYPERLINK(1)")
    at = datetime.now(UTC) - timedelta(hours=1)
    keep(
        [
            call(of_key(minted), at, model="@SUM(A1)", provider="openai", client='+1,"x"\n2', cost_nano_usd=None),
            call(of_key(minted), at, address="-1", client="\tx", cost_nano_usd=1_500_000_001),
            call(of_key(minted), at, cost_nano_usd=None, client="\rx"),
        ]
    )
    answer = owner.one_request("GET", "/usage.csv")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="usage-alice-')
    assert answer.content_type.startswith("text/csv")
    first, second, third = csv_rows(answer.text)
    assert first["key"] == "'=HYPERLINK(1)"
    assert (first["model"], first["client"], first["cost_usd"]) == ("'@SUM(A1)", '\'+1,"x"\n2', "unknown")
    assert (second["address"], second["client"], second["cost_usd"]) == ("'-1", "'\tx", "1.500000001")
    assert (third["client"], third["cost_usd"]) == ("'\rx", "")
    assert first["started_at"] == f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"
    for row in (first, second, third):
        assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r")) for value in row.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("=1+1", "'=1+1"),
        ("  =1+1", "'  =1+1"),
        ("＝1+1", "'＝1+1"),
        # What a spreadsheet would read that takes semicolons, tabs or lines for its separators.
        ("x;=1+1", "x;'=1+1"),
        ("x,@SUM(A1)", "x,'@SUM(A1)"),
        ('x;"=1+1"', 'x;"\'=1+1"'),
        ("x\t-1", "x\t'-1"),
        ("x\n+1", "x\n'+1"),
        # Nothing begins here.
        ("gpt-4o a=b 1+1 me@example.com", "gpt-4o a=b 1+1 me@example.com"),
        ("anthropic/claude-3.5-sonnet", "anthropic/claude-3.5-sonnet"),
        (None, ""),
        (True, "yes"),
        (-1, "'-1"),
    ],
)
def test_a_cell_is_no_formula_whatever_separates_cells(text: object, told: str) -> None:
    assert csv_lines.cell(text) == told


def test_three_states_of_nothing(owner: Visitor, alice: Person, mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No calls yet" in owner.open("/usage").text
    assert "/quickstart" in owner.open("/usage").links
    minted = mint()
    keep([call(of_key(minted), now() - 20 * DAY)])
    page = owner.open("/usage?range=7d")
    assert "No calls in this range" in page.text
    assert "No calls yet" not in page.text
    page = owner.open("/usage?range=30d&model=nothing")
    assert "No calls match" in page.text
    assert "/usage?range=30d" in page.links
    assert "No calls match" in owner.open(f"/usage?range=30d&key={'x' * 500}").text

    def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("locked"))

    monkeypatch.setattr("services.usage._grouped", fail)
    page = owner.open("/usage?range=30d")
    assert owner.status == 503
    assert "The figures could not be loaded" in page.text
    assert "No calls" not in page.text


def test_other_workspaces_keys_find_nothing(owner: Visitor, charlie: Person, mint: Mint) -> None:
    theirs = mint("Secret project", owner=charlie)
    keep([call(of_key(theirs), now()), call(of_key(mint()), now())])
    for path in (f"/usage?key={theirs.key.id}", f"/usage.csv?key={theirs.key.id}"):
        text = owner.open(path).text
        assert "Secret project" not in text
        assert theirs.key.id not in text or path.startswith("/usage?")
    assert "No calls match" in owner.open(f"/usage?key={theirs.key.id}").text


def test_the_limits_are_told_with_words_and_a_bar(owner: Visitor, alice: Person, mint: Mint) -> None:
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=10, actor=SYSTEM)
    caller, minute = of_key(mint()), now().replace(second=0, microsecond=0) - timedelta(hours=1)
    keep([call(caller, minute) for _ in range(7)])
    assert "7 of 10 70.0 % used" in owner.open("/usage").text
    keep([call(caller, minute)])
    page = owner.open("/usage?range=24h")
    assert "8 of 10 80.0 % used: near the limit" in page.text
    assert "At most 8 calls in a minute; 10 are allowed" in page.text
    assert "The limit of requests is near: 8 of 10" in owner.open("/overview").text
    keep([call(caller, minute), call(caller, minute), call(caller, minute, code="rate_limit_exceeded", status=429)])
    assert "10 of 10 Reached" in owner.open("/usage").text
    assert "The limit of requests was reached" in owner.open("/overview").text
    assert "1 call got error 429" in owner.open("/usage").text


def test_spending_limits_are_shown_where_they_matter(
    owner: Visitor, viewer: Visitor, alice: Person, mint: Mint
) -> None:
    minted = mint("Importer", environment="live")
    keep([call(of_key(minted), now(), provider="openai", cost_nano_usd=8 * 10**9)])
    with transaction():
        minted.key.daily_limit_nano_usd = 8 * 10**9
        alice.workspace.monthly_limit_nano_usd = 10 * 10**9
    page = owner.open("/usage")
    for words in ("$8.00 of $10.00 80.0 % used: near the limit", "$8.00 of $8.00 Reached", "Calls answer error 402"):
        assert words in page.text
    assert "/usage/limits" in page.links
    assert "/usage/limits" not in viewer.open("/usage").links
    page = owner.open(f"/keys/{minted.key.id}")
    assert "$8.00 of $8.00 Reached" in page.text
    assert "$8.00 of $10.00" not in page.text
    page = owner.open("/overview")
    assert "Cost this month $8.00 of $10.00 limit" in page.text
    assert "$8.00 of $8.00 today. Spending limit reached." in page.text
    header = bearer(mint("asker", scopes=["billing:read"]).secret)
    limits = owner.one_request("GET", "/v1/billing", headers=header).json["spending_limits"]
    assert [(one["period"], one["spent_usd"], one["limit_usd"]) for one in limits] == [
        ("month", "8.00", "10.00"),
        ("day", "8.00", "8.00"),
    ]


def test_unknown_and_estimated_costs_are_said(owner: Visitor, mint: Mint) -> None:
    caller = of_key(mint())
    keep([call(caller, now(), model="llama3", provider="house", cost_nano_usd=None, output_tokens=1)])
    page = owner.open("/usage")
    assert "Cost, 14 days unknown 1 call of unknown price" in page.text
    keep([call(caller, now(), model="gpt-4o", provider="openai", cost_nano_usd=41_000_000, estimated=True)])
    page = owner.open("/usage")
    assert "Cost, 14 days $0.041 1 call of unknown price, 1 call estimated" in page.text
    assert "1 call of unknown price is not in it. 1 call is estimated." in page.text
    assert "Cost this month $0.041" in owner.open("/overview").text


def test_costs_are_stacked_three_deep_at_most(owner: Visitor, mint: Mint) -> None:
    caller = of_key(mint())
    costs = {"first": 4, "second": 3, "third": 2, "fourth": 1}
    keep([call(caller, now(), provider=name, cost_nano_usd=cost * 10**9) for name, cost in costs.items()])
    page = owner.open("/usage")
    today = now()
    assert "Day first second Others" in page.text
    assert f"{today.day} {today:%b %Y} $4.00 $3.00 $3.00" in page.text


def test_a_viewer_sees_figures_and_may_not_edit(viewer: Visitor, mint: Mint) -> None:
    keep([call(of_key(mint()), now())])
    page = viewer.open("/usage")
    assert viewer.status == 200
    assert "Edit limits" not in page.text


@pytest.mark.parametrize("query", ["range=1000d", "range=", "range=0d", "key=%27%22--", "model=%F0%9F%92%A5&range=24h"])
def test_what_makes_no_sense_is_the_usual(owner: Visitor, mint: Mint, query: str) -> None:
    keep([call(of_key(mint()), now())])
    owner.open(f"/usage?{query}")
    assert owner.status == 200
    assert owner.one_request("GET", f"/usage.csv?{query}").status_code == 200


def test_the_keys_page_tells_tokens_cost_and_its_log(
    owner: Visitor, viewer: Visitor, alice: Person, mint: Mint
) -> None:
    minted, other = mint("Importer"), mint("Exporter")
    row = {"provider": "openai", "model": "gpt-4o", "input_tokens": 812, "output_tokens": 230}
    keep([call(of_key(minted), now(), **row, cost_nano_usd=4_100_000), call(of_key(other), now(), **row)])
    keys.disable(alice.workspace, minted.key.id, actor=alice.actor)
    page = owner.open(f"/keys/{minted.key.id}")
    assert "gpt-4o Requests 1 Failed 0 Input tokens 812 Output tokens 230 Cost $0.0041" in page.text
    assert "alice@northwind.example disabled the key When Just now From 127.0.0.1" in page.text
    assert "created the key" in page.text
    assert page.text.index("disabled the key") < page.text.index("created the key")
    # The log is for owners and admins.
    assert "disabled the key" not in viewer.open(f"/keys/{minted.key.id}").text
    assert "disabled the key Importer" in owner.open("/overview").text
    assert "disabled the key" not in viewer.open("/overview").text


def test_the_list_asks_only_about_the_keys_it_shows(app: Flask, alice: Person, mint: Mint) -> None:
    minted, other = mint(), mint()
    keep([call(of_key(minted), now()), call(of_key(other), now()), call(Owner(alice.workspace_id, None, None), now())])
    assert set(keys.requests_in_days(alice.workspace, 7, [minted.key.id])) == {minted.key.id}
    assert set(keys.requests_in_days(alice.workspace, 7)) == {minted.key.id, other.key.id}
    assert set(keys.last_uses(alice.workspace)) == {minted.key.id, other.key.id}


def test_bars_stand_on_each_other_and_below_the_limit() -> None:
    chart = bar_chart(["a", "b"], [[1, 2, 1], [0, 0, 0]], 100, last="today", limit=7)
    bottom, *_ = [line.y - 0.5 for line in chart.grid]
    first, second, third = chart.bars[:3]
    assert first.y + first.height == bottom
    assert second.y + second.height == first.y
    assert third.y + third.height == second.y
    assert [bar.height for bar in chart.bars] == [10, 20, 10, 0, 0, 0]
    assert [bar.label for bar in chart.bars] == ["a", "", "", "today", "", ""]
    assert chart.limit is not None
    assert chart.limit.y == bottom - 70
    assert as_usd(4_100_000) == "0.0041"
