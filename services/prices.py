"""What calls cost, in nano-dollars (0.000000001 USD), by the price table of genai-prices.

The table is the one inside the installed package; nothing is ever fetched. A model that is not in it, or that is priced
by something we do not count (hours, pictures, audio tokens), has no price: its cost is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from models.base import now

if TYPE_CHECKING:
    from services.metering import Call

SIMULATOR = "simulator"

# Our providers and their lists in the table. A server that the operator declared has none, whatever it is called.
_LISTS = {"openai": "openai", "openrouter": "openrouter"}
# Prices by these alone tell what a call costs. Searches and writing to a provider's cache come on top and are not told
# by every provider, so they are not counted.
_COUNTED = {"input_mtok", "cache_read_mtok", "output_mtok"}
_EXTRAS = {"cache_write_mtok", "cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount"}
_NANO_USD_PER_TOKEN = Decimal(1000)  # at one dollar for a million tokens
_LONGEST_NAME = 200
_NAMES_KEPT = 2048


def load() -> None:
    """Read the table, which takes half a second, so that no caller waits for it."""
    _table()


def charge(call: Call) -> None:
    """Put on the call what it cost, and the version of the table that says so."""
    call.cost_nano_usd, call.price_version = cost_of(
        call.key.environment,
        call.provider,
        call.provider_model or call.model,
        call.started_at,
        input_tokens=call.input_tokens,
        cached_input_tokens=call.cached_input_tokens,
        output_tokens=call.output_tokens,
    )


def cost_of(
    environment: str,
    provider: str | None,
    model: str | None,
    at: datetime,
    *,
    input_tokens: int | None,
    cached_input_tokens: int | None,
    output_tokens: int | None,
) -> tuple[int | None, str | None]:
    """Return what a call cost, None when it cannot be told, and the version of the table that says so.

    A test call costs nothing, and so does one that no provider was asked for.
    """
    if environment == "test" or provider == SIMULATOR:
        return 0, SIMULATOR
    if provider is None:
        return 0, None
    cost = cost_nano_usd(
        provider,
        model or "",
        at,
        input_tokens=input_tokens,
        cached_input_tokens=cached_input_tokens or 0,
        output_tokens=output_tokens,
    )
    return cost, None if cost is None else version()


def cost_nano_usd(
    provider: str,
    model: str,
    at: datetime,
    *,
    input_tokens: int | None,
    cached_input_tokens: int = 0,
    output_tokens: int | None,
) -> int | None:
    """Return what so many tokens cost at that moment, half a nano-dollar rounded up; None when it is unknown.

    The cached tokens are among the input tokens. A count of None is unknown, which does not matter where such tokens
    have no price: embeddings have no output.
    """
    if input_tokens == 0 and output_tokens == 0:
        return 0
    rates = _rates(provider, model, at)
    if rates is None or input_tokens is None or (output_tokens is None and rates.output is not None):
        return None
    output_tokens = output_tokens or 0
    if (input_tokens and rates.input is None) or (output_tokens and rates.output is None):
        return None
    cached = min(cached_input_tokens, input_tokens)
    usd_per_million = (
        (input_tokens - cached) * _rate(rates.input, input_tokens)
        + cached * _rate(rates.cached_input or rates.input, input_tokens)
        + output_tokens * _rate(rates.output, input_tokens)
    )
    return int((usd_per_million * _NANO_USD_PER_TOKEN).to_integral_value(ROUND_HALF_UP))


def most_nano_usd(
    provider: str, model: str, input_tokens: int, output_tokens: int, at: datetime | None = None
) -> int | None:
    """Return what a call with at most so many tokens may cost at most, rounded up; None when the price is unknown."""
    rates = _rates(provider, model, at or now())
    if rates is None or (input_tokens and rates.input is None):
        return None
    dearest_input = max(_dearest(rates.input, input_tokens), _dearest(rates.cached_input, input_tokens))
    # A model without a price for output has no output.
    usd_per_million = input_tokens * dearest_input + output_tokens * _dearest(rates.output, input_tokens)
    return int((usd_per_million * _NANO_USD_PER_TOKEN).to_integral_value(ROUND_CEILING))


def is_known(provider: str, model: str) -> bool:
    """Tell whether the table has a price for the model now."""
    return _rates(provider, model, now()) is not None


def version() -> str:
    """Return the version of the table as usage rows keep it."""
    return _table().version


@dataclass(frozen=True, slots=True)
class _Tiers:
    """Dollars for a million tokens: the price from 0 input tokens on, then those from above each start on."""

    base: Decimal
    above: tuple[tuple[int, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class _Rates:
    """What a model's tokens cost at one time. None: such tokens have no price."""

    input: _Tiers | None
    cached_input: _Tiers | None
    output: _Tiers | None


@dataclass(frozen=True, slots=True)
class _Table:
    version: str
    lists: Mapping[str, Any]


@lru_cache(maxsize=1)
def _table() -> _Table:
    # Not at the top: reading it takes half a second, and commands do without.
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    lists = {provider.id: provider for provider in get_snapshot().providers}
    return _Table(
        f"genai-prices {genai_prices.__version__}", {name: lists[list_id] for name, list_id in _LISTS.items()}
    )


def _rates(provider: str, model: str, at: datetime) -> _Rates | None:
    # Some prices depend on the day and the time of day, which the table tells in minutes.
    return _rates_in_minute(provider, model, at.replace(second=0, microsecond=0))


@lru_cache(maxsize=_NAMES_KEPT)
def _rates_in_minute(provider: str, model: str, at: datetime) -> _Rates | None:
    found = _model(provider, model)
    if found is None:
        return None
    prices = found.get_prices(at)
    given = {name: value for name, value in vars(prices).items() if value is not None}
    if not given:
        # An empty list of prices means free only where the name says so; elsewhere nobody has filled it in.
        return _Rates(_Tiers(Decimal(0)), None, _Tiers(Decimal(0))) if model.lower().endswith(":free") else None
    if not given.keys() <= _COUNTED | _EXTRAS or not given.keys() & _COUNTED:
        return None
    return _Rates(_tiers(given, "input_mtok"), _tiers(given, "cache_read_mtok"), _tiers(given, "output_mtok"))


@lru_cache(maxsize=_NAMES_KEPT)
def _model(provider: str, name: str) -> Any:
    # Callers choose the name. The package's own look-up would remember each of them for ever.
    if provider not in _LISTS or not 0 < len(name) <= _LONGEST_NAME:
        return None
    prices = _table().lists[provider]
    # A provider's own models are called with and without its name.
    return prices.find_model(name) or prices.find_model(name.removeprefix(f"{provider}/"))


def _tiers(prices: Mapping[str, Any], name: str) -> _Tiers | None:
    price = prices.get(name)
    if price is None or isinstance(price, Decimal):
        return None if price is None else _Tiers(price)
    return _Tiers(price.base, tuple((tier.start, tier.price) for tier in price.tiers))


def _rate(tiers: _Tiers | None, input_tokens: int) -> Decimal:
    """Return the price in force for a request with so much input: it holds for all its tokens."""
    if tiers is None:
        return Decimal(0)
    return next((price for start, price in reversed(tiers.above) if input_tokens > start), tiers.base)


def _dearest(tiers: _Tiers | None, input_tokens: int) -> Decimal:
    """Return the highest price that a request with at most so much input can meet."""
    if tiers is None:
        return Decimal(0)
    return max([tiers.base, *(price for start, price in tiers.above if input_tokens > start)])
