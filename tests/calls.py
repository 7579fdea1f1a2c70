"""Calls at random, as rows of usage, and what they add up to without a database."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert

from models import UsageRecord
from models.base import new_id, transaction
from services.usage import Figures

MODELS = [
    ("gpt-4o", "openai"),
    ("gpt-4o-mini", "openai"),
    ("openai/gpt-4o", "openrouter"),
    ("llama3", "house"),
    ("any", "simulator"),
    (None, None),
]
CODES = [None] * 12 + ["caller_hung_up", "provider_unreachable", "invalid_api_key", "spending_limit_reached"]
CODES += ["rate_limit_exceeded", "insufficient_scope", "provider_error"]
CALL: dict[str, Any] = {
    "user_id": None,
    "environment": "live",
    "endpoint": "chat/completions",
    "duration_ms": 900,
    "streamed": False,
    "model": None,
    "provider": None,
    "code": None,
    "status": 200,
    "input_tokens": None,
    "cached_input_tokens": None,
    "output_tokens": None,
    "estimated": False,
    "cost_nano_usd": 0,
    "address": "203.0.113.24",
    "client": "tests/1.0",
}


@dataclass(frozen=True)
class Owner:
    """Who calls: a key of a workspace, or somebody at its playground."""

    workspace_id: str
    key_id: str | None
    secret_id: str | None


def call(owner: Owner, at: datetime, **values: Any) -> dict[str, Any]:
    """Return a row; what is not said is as in CALL."""
    whose = {"workspace_id": owner.workspace_id, "api_key_id": owner.key_id, "secret_id": owner.secret_id}
    return {**CALL, "request_id": new_id("req"), "started_at": at, "ended_at": at, **whose, **values}


def random_calls(owners: list[Owner], first: datetime, last: datetime, count: int, seed: int) -> list[dict[str, Any]]:
    """Return calls of all kinds between two moments, many of them at the edges of hours and days."""
    chance = random.Random(seed)
    seconds = int((last - first).total_seconds())
    rows = []
    for _ in range(count):
        at = first + timedelta(seconds=chance.randrange(seconds))
        edge = at.replace(minute=0, second=0) if chance.random() < 0.5 else at.replace(hour=0, minute=0, second=0)
        at = chance.choice([at, edge, edge - timedelta(microseconds=1), edge + timedelta(microseconds=1)])
        model, provider = chance.choice(MODELS)
        code = chance.choice(CODES)
        failed = code not in (None, "caller_hung_up", "provider_unreachable")
        values: dict[str, Any] = {"model": model, "provider": provider, "code": code, "status": 429 if failed else 200}
        if not failed and provider is not None:
            values["input_tokens"] = chance.choice([None, 0, chance.randrange(10_000)])
            values["cached_input_tokens"] = chance.choice([None, 0, 7])
            values["output_tokens"] = chance.randrange(3_000)
            values["estimated"] = chance.random() < 0.2
            values["cost_nano_usd"] = chance.choice([None, 0, 1, chance.randrange(10**11)])
            values["ended_at"] = chance.choice([at, at, at, None])
        rows.append(call(chance.choice(owners), at, **values))
    return rows


def keep(rows: list[dict[str, Any]]) -> None:
    with transaction() as session:
        session.execute(insert(UsageRecord), rows)


def added_up(rows: Iterable[dict[str, Any]]) -> Figures:
    """Add the rows up one by one."""
    figures = Figures()
    for row in rows:
        figures.requests += 1
        figures.failed += row["status"] >= 400 or row["code"] not in (None, "caller_hung_up")
        figures.limited += row["code"] == "rate_limit_exceeded"
        for name in ("input_tokens", "cached_input_tokens", "output_tokens", "cost_nano_usd"):
            setattr(figures, name, getattr(figures, name) + (row[name] or 0))
        asked = row["ended_at"] is not None and row["provider"] not in (None, "simulator")
        figures.unknown += asked and row["cost_nano_usd"] is None
        figures.estimated += row["estimated"]
    return figures
