"""Amounts of money: whole nano-dollars inside, dollars as decimal text outside, never a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

NANO_PER_USD = 1_000_000_000
MOST_USD = 1_000_000_000
_DECIMALS = 9


def as_usd(nano_usd: int) -> str:
    """Return dollars with at least two decimals and none that say nothing: ``500.00``, ``0.000045``."""
    sign, nano_usd = ("-", -nano_usd) if nano_usd < 0 else ("", nano_usd)
    dollars, rest = divmod(nano_usd, NANO_PER_USD)
    decimals = f"{rest:0{_DECIMALS}}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def read_usd(value: Any) -> int:
    """Return the nano-dollars of a text such as ``12.50`` or a number.

    Raises ValueError with a sentence for what is no amount, negative, or beyond a billion dollars.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("Give an amount in US dollars, such as 12.50")
    try:
        # A float's shortest spelling is what was written.
        usd = Decimal(str(value).strip().removeprefix("$").replace(",", ""))
    except InvalidOperation:
        raise ValueError("Give an amount in US dollars, such as 12.50") from None
    if not usd.is_finite() or not 0 <= usd <= MOST_USD:
        raise ValueError(f"Give an amount from 0 to {MOST_USD:,} US dollars")
    nano_usd = usd * NANO_PER_USD
    if nano_usd != nano_usd.to_integral_value():
        raise ValueError(f"Give at most {_DECIMALS} decimals")
    return int(nano_usd)
