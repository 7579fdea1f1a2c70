"""``/v1/usage``, its calls, and ``/v1/billing``. That the figures are right is tested with the page's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from models.base import now
from services import keys, usage
from services.usage import PLAYGROUND
from tests.calls import Owner, call, keep
from tests.people import Person, bearer

Mint = Callable[..., keys.Minted]


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested on both."""
    return one_database_url


@pytest.fixture
def ask(client: FlaskClient, mint: Mint) -> Callable[..., Any]:
    """Ask with a key that may: ``ask("/v1/usage?group_by=key")`` gives status and JSON."""
    header = bearer(mint("asker", scopes=["usage:read", "billing:read"]).secret)

    def ask(path: str) -> tuple[int, Any]:
        answer = client.get(path, headers=header)
        return answer.status_code, answer.json

    return ask


def of_key(minted: keys.Minted) -> Owner:
    return Owner(minted.key.workspace_id, minted.key.id, minted.key.secrets[0].id)


def test_usage_needs_its_scope(client: FlaskClient, mint: Mint) -> None:
    for scope, path in [
        ("billing:read", "/v1/usage"),
        ("billing:read", "/v1/usage/calls"),
        ("usage:read", "/v1/billing"),
    ]:
        header = bearer(mint(scope + path, scopes=[scope]).secret)
        answer = client.get(path, headers=header)
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "insufficient_scope")
    assert client.get("/v1/usage").status_code == 401


def test_keys_beyond_the_most_are_told_as_others_and_not_as_the_playground(
    ask: Any, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MOST_NAMES", 1)
    keep([call(of_key(mint(name)), now() - timedelta(minutes=2)) for name in ("first", "second", "third")])
    _, found = ask("/v1/usage?group_by=key")
    assert [(part["key"], part["name"]) for part in found["data"] if part["key"][:4] != "key_"] == [("…", "…")]


def test_figures_by_day_hour_and_name(ask: Any, alice: Person, mint: Mint) -> None:
    minted = mint("Importer")
    values = {"model": "gpt-4o", "provider": "openai", "input_tokens": 812, "output_tokens": 230}
    yesterday = (now() - timedelta(days=1)).replace(hour=9, minute=30)
    keep(
        [
            call(of_key(minted), yesterday, **values, cost_nano_usd=4_100_000),
            call(of_key(minted), yesterday, **values, cost_nano_usd=None, estimated=True, code="provider_unreachable"),
            call(Owner(alice.workspace_id, None, None), yesterday, code="rate_limit_exceeded", status=429),
        ]
    )
    day = f"{yesterday:%Y-%m-%d}"
    status, found = ask(f"/v1/usage?from={day}&to={now():%Y-%m-%d}")
    assert status == 200
    figures = {
        "requests": 3,
        "failed": 2,
        "rate_limited": 1,
        "input_tokens": 1624,
        "cached_input_tokens": 0,
        "output_tokens": 460,
        "cost_usd": "0.0041",
        "unknown_cost_calls": 1,
        "estimated_calls": 1,
    }
    assert found == {
        "object": "usage",
        "from": f"{day}T00:00:00Z",
        "to": f"{now():%Y-%m-%d}T00:00:00Z",
        "filter": {"key": None, "model": None, "provider": None},
        "group_by": "day",
        "total": figures,
        "data": [{"day": day, **figures}],
    }
    _, found = ask(f"/v1/usage?from={day}&to={now():%Y-%m-%d}&group_by=hour")
    assert len(found["data"]) == 24
    assert found["data"][9] == {"hour": f"{day}T09:00:00Z", **figures}
    _, found = ask(f"/v1/usage?from={day}&to={now():%Y-%m-%d}&group_by=key")
    assert [(part["key"], part["name"], part["requests"]) for part in found["data"]] == [
        (minted.key.id, "Importer", 2),
        (PLAYGROUND, "Playground", 1),
    ]
    for group, names in [("model", ["gpt-4o", None]), ("provider", ["openai", None])]:
        _, found = ask(f"/v1/usage?from={day}&to={now():%Y-%m-%d}&group_by={group}")
        assert [part[group] for part in found["data"]] == names
    _, found = ask(f"/v1/usage?from={day}T09:30:00Z&to={day}T10:00:00%2B00:00&key={PLAYGROUND}")
    assert found["total"]["requests"] == 1


def test_without_a_time_it_is_the_last_thirty_days(ask: Any, mint: Mint) -> None:
    caller = of_key(mint())
    keep([call(caller, now()), call(caller, now() - timedelta(days=28)), call(caller, now() - timedelta(days=31))])
    _, found = ask("/v1/usage")
    assert len(found["data"]) == 30
    assert found["data"][-1]["day"] == f"{now():%Y-%m-%d}"
    assert found["total"]["requests"] == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=week", "group_by"),
        ("group_by=", "group_by"),
        ("from=yesterday", "from"),
        ("from=2026-11-20T10:00:00", "from"),
        ("from=9999-12-31&to=0001-01-01", "to"),
        ("to=9999-12-31T23:59:59-12:00", "to"),
        ("from=2026-11-20&to=2026-11-20", "from"),
        ("from=2024-01-01&to=2026-01-01", "from"),
        ("group_by=hour&from=2026-01-01&to=2026-03-01", "from"),
        ("gruop_by=day", "gruop_by"),
        ("key=a&key=b", "key"),
        (f"model={'x' * 201}", "model"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(ask: Any, query: str, param: str) -> None:
    status, found = ask(f"/v1/usage?{query}")
    assert (status, found["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=²", "limit"),
        ("cursor=%3D%3D", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=a2V5", "cursor"),
        ("cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ", "cursor"),
        ("cursor=OTk5OTk5", "cursor"),
        ("group_by=day", "group_by"),
    ],
)
def test_a_page_that_cannot_be_is_refused(ask: Any, query: str, param: str) -> None:
    status, found = ask(f"/v1/usage/calls?{query}")
    assert (status, found["error"]["param"]) == (400, param)


def test_calls_come_page_by_page_the_latest_first(ask: Any, mint: Mint) -> None:
    minted = mint("Importer")
    moments = [now() - timedelta(seconds=number // 2) for number in range(7)]
    kept = [call(of_key(minted), at, model="gpt-4o", provider="openai", cost_nano_usd=None) for at in moments]
    keep(kept)
    found, cursor = [], ""
    while cursor is not None:
        status, page = ask(f"/v1/usage/calls?limit=3&key={minted.key.id}{cursor and '&cursor=' + cursor}")
        assert status == 200
        assert page["has_more"] == (page["next_cursor"] is not None)
        found += page["data"]
        cursor = page["next_cursor"]
    ordered = sorted(enumerate(kept), key=lambda pair: (pair[1]["started_at"], pair[0]), reverse=True)
    assert [one["request_id"] for one in found] == [row["request_id"] for _, row in ordered]
    assert found[0]["cost_usd"] is None
    assert found[0]["address"] == "203.0.113.24"
    assert found[0]["started_at"].endswith("Z")


def test_another_workspaces_calls_are_not_there(ask: Any, charlie: Person, mint: Mint) -> None:
    theirs = mint(owner=charlie)
    keep([call(of_key(theirs), now())])
    assert ask("/v1/usage")[1]["total"]["requests"] == 0
    assert ask(f"/v1/usage?key={theirs.key.id}")[1]["total"]["requests"] == 0
    _, found = ask(f"/v1/usage/calls?key={theirs.key.id}")
    assert found["data"] == []


def test_a_publishable_key_learns_of_no_money_and_no_address(client: FlaskClient, mint: Mint) -> None:
    keep([call(of_key(mint()), now(), provider="openai", cost_nano_usd=4_100_000)])
    header = bearer(mint("page", kind="publishable", scopes=["usage:read"]).secret)
    found = client.get("/v1/usage", headers=header).json
    assert found["total"]["requests"] == 1
    assert found["total"]["cost_usd"] is found["data"][-1]["cost_usd"] is None
    (listed, *_) = client.get("/v1/usage/calls", headers=header).json["data"][::-1]
    assert [listed[name] for name in ("cost_usd", "address", "client")] == [None, None, None]


def test_billing_tells_plan_limits_and_the_month(ask: Any, mint: Mint) -> None:
    keep([call(of_key(mint()), now(), provider="openai", cost_nano_usd=cost) for cost in (4_100_000, None)])
    status, found = ask("/v1/billing")
    assert status == 200
    assert found["plan"] == {"name": "agency", "title": "Agency", "price": "$699 per month", "api_access": True}
    assert found["limits"] == {"requests_per_minute": 1000}
    month = {"from": f"{now():%Y-%m}-01T00:00:00Z", "cost_usd": "0.0041", "unknown_cost_calls": 1, "estimated_calls": 0}
    assert found["month"] == month
    assert found["spending_limits"] == []
