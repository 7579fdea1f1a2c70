"""Amounts of money: read exactly, or refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.money import MOST_USD, NANO_PER_USD, as_usd, read_usd


@pytest.mark.parametrize(
    ("written", "nano_usd"),
    [
        ("12.50", 12_500_000_000), (" $1,000 ", 1_000 * NANO_PER_USD), ("0", 0), (5, 5 * NANO_PER_USD),
        (0.1, 100_000_000), (1e-9, 1), ("0.000000001", 1), ("1,000,000,000", MOST_USD * NANO_PER_USD),
    ],
)  # fmt: skip
def test_an_amount_is_read_to_the_nano_dollar(written: Any, nano_usd: int) -> None:
    assert read_usd(written) == nano_usd


@pytest.mark.parametrize(
    "written",
    ["", "ten", "-1", "12,50", "1e9", "1_000", "١", "NaN", "Infinity", "0.0000000001", "1,000,000,001", "9" * 5000,
     True, None, [1], -1, 1e300, float("nan"), float("inf"), 10**400],
)  # fmt: skip
def test_what_is_no_amount_is_refused_with_a_sentence(written: Any) -> None:
    with pytest.raises(ValueError, match=r"^Give "):
        read_usd(written)


@given(st.integers(0, MOST_USD * NANO_PER_USD))
def test_what_is_shown_is_read_back_as_the_same_amount(nano_usd: int) -> None:
    shown = as_usd(nano_usd)
    assert read_usd(shown) == nano_usd
    assert len(shown.partition(".")[2]) >= 2
