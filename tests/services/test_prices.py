"""Costs agree with the price table to the nano-dollar, and what it does not tell stays unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from services import prices

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
LISTS = {provider.id: provider for provider in get_snapshot().providers if provider.id in ("openai", "openrouter")}
# Priced by tokens alone, so that the package's own sum tells the whole cost.
TOKENS = {"input_mtok", "cache_read_mtok", "output_mtok"}
counts = st.integers(0, 3_000_000)


def priced_models() -> list[tuple[str, Any]]:
    found = []
    for provider in LISTS.values():
        for model in provider.models:
            named = vars(model.get_prices(AT)).items()
            prices_given = {name for name, value in named if value is not None}
            # Only names by which the model itself is found; some are shadowed by an earlier entry.
            if {"input_mtok", "output_mtok"} <= prices_given <= TOKENS and provider.find_model(model.id) is model:
                found.append((provider.id, model))
    return found


MODELS = priced_models()


@given(st.sampled_from(MODELS), counts, counts, counts)
def test_a_cost_is_the_price_tables_own_sum(model: tuple[str, Any], inputs: int, cached: int, outputs: int) -> None:
    name, info = model
    cached = min(cached, inputs)
    usage = Usage(input_tokens=inputs, cache_read_tokens=cached, output_tokens=outputs)
    usd = info.calc_price(usage, LISTS[name], genai_request_timestamp=AT).total_price
    expected = int((usd * 1_000_000_000).to_integral_value(ROUND_HALF_UP))
    found = prices.cost_nano_usd(
        name, info.id, AT, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs
    )
    assert found == expected
    assert len(MODELS) > 500


@given(st.sampled_from(MODELS), counts, counts, counts, st.data())
def test_no_call_within_its_bounds_costs_more_than_its_most(
    model: tuple[str, Any], most_input: int, most_output: int, cached: int, data: st.DataObject
) -> None:
    name, info = model
    inputs, outputs = data.draw(st.integers(0, most_input)), data.draw(st.integers(0, most_output))
    cost = prices.cost_nano_usd(
        name, info.id, AT, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs
    )
    most = prices.most_nano_usd(name, info.id, most_input, most_output, AT)
    assert cost is not None
    assert most is not None
    assert cost <= most


def test_known_prices_to_the_nano_dollar() -> None:
    # $2.50 in, $1.25 cached, $10 out for a million.
    assert cost("openai", "gpt-4o", 1000, 500, cached=200) == 800 * 2500 + 200 * 1250 + 500 * 10_000
    assert cost("openai", "openai/gpt-4o", 1000, 500) == cost("openai", "gpt-4o", 1000, 500)
    assert cost("openrouter", "anthropic/claude-3.5-sonnet", 1, 1) == 18_000
    assert cost("openrouter", "deepseek/deepseek-r1:free", 1000, 500) == 0
    assert cost("openai", "text-embedding-3-small", 1000, None) == 20_000
    assert cost("openai", "gpt-4o", 10, 1, cached=99) == 10 * 1250 + 10_000


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-9-imaginary"),
        ("openai", ""),
        ("openai", "gpt-4o" * 100),
        # Declared by an operator, under a name that the table knows by chance.
        ("mistral", "mistral-large-latest"),
        # In the table with no price filled in, and with prices for hours or sound.
        ("openrouter", "google/lyria-3-pro-preview"),
        ("openai", "whisper-1"),
        ("openai", "gpt-audio"),
    ],
)
def test_an_unknown_price_is_unknown_and_never_nothing(provider: str, model: str) -> None:
    assert cost(provider, model, 1000, 500) is None
    assert prices.most_nano_usd(provider, model, 1000, 500) is None
    assert not prices.is_known(provider, model)


def test_a_cost_without_counts_is_unknown() -> None:
    assert cost("openai", "gpt-4o", None, 500) is None
    assert cost("openai", "gpt-4o", 1000, None) is None
    assert cost("openai", "gpt-9-imaginary", 0, 0) == 0


def test_a_price_that_changed_holds_from_its_day_on() -> None:
    name, info = next(
        (name, model)
        for name, provider in LISTS.items()
        for model in provider.models
        if model.id == "o3" and name == "openai"
    )
    change = next(price.constraint.start_date for price in info.prices if price.constraint is not None)
    day = datetime(change.year, change.month, change.day, tzinfo=UTC)
    before = prices.cost_nano_usd(name, "o3", day.replace(year=day.year - 1), input_tokens=1000, output_tokens=0)
    after = prices.cost_nano_usd(name, "o3", day, input_tokens=1000, output_tokens=0)
    assert before != after
    rate = info.get_prices(day).input_mtok
    assert isinstance(rate, Decimal)
    assert after == int(rate * 1_000_000)


def test_names_that_callers_invent_are_not_remembered_for_ever() -> None:
    for number in range(3000):
        assert not prices.is_known("openai", f"nonsense-{number}")
    snapshot = get_snapshot()
    assert len(snapshot._provider_cache) + len(snapshot._provider_misses) + len(snapshot._lookup_cache) < 100


def cost(provider: str, model: str, inputs: int | None, outputs: int | None, cached: int = 0) -> int | None:
    return prices.cost_nano_usd(
        provider, model, AT, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs
    )
