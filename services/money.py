"""Amounts of money: whole nano-dollars inside, dollars as decimal text outside, never a float."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

NANO_PER_USD = 1_000_000_000
MOST_USD = 1_000_000_000
_DECIMALS = 9
# A comma only between thousands: in some countries 12,50 is twelve and a half.
_AMOUNT = re.compile(r"\$?(?:[0-9]{1,12}|[0-9]{1,3}(?:,[0-9]{3}){1,3})(?:\.[0-9]{1,15})?")
_EXAMPLE = "Give an amount in US dollars, such as 12.50"


def as_usd(nano_usd: int) -> str:
    """Return dollars with at least two decimals and none that say nothing: ``500.00``, ``0.000045``."""
    sign, nano_usd = ("-", -nano_usd) if nano_usd < 0 else ("", nano_usd)
    dollars, rest = divmod(nano_usd, NANO_PER_USD)
    decimals = f"{rest:0{_DECIMALS}}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def read_usd(value: Any) -> int:
    """Return the nano-dollars of a text such as ``12.50`` or ``$1,000``, or of a number.

    Raises ValueError with a sentence for what is no amount, negative, or beyond a billion dollars.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(_EXAMPLE)
    # A float's shortest spelling is what was written.
    text = value.strip() if isinstance(value, str) else f"{Decimal(str(value)):f}"
    if not _AMOUNT.fullmatch(text):
        raise ValueError(_EXAMPLE)
    nano_usd = Decimal(text.removeprefix("$").replace(",", "")) * NANO_PER_USD
    if nano_usd > MOST_USD * NANO_PER_USD:
        raise ValueError(f"Give at most {MOST_USD:,} US dollars")
    if nano_usd != int(nano_usd):
        raise ValueError("Give at most nine decimals")
    return int(nano_usd)
