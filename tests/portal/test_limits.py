"""Limits are exact over worker processes, whatever counts them."""

from __future__ import annotations

from collections.abc import Callable

from tests.neighbours.portal import Portal
from tests.portal.calls import call, hammer


def test_of_1500_requests_in_a_minute_exactly_1000_pass(portal: Portal, new_key: Callable[..., str]) -> None:
    key = new_key("load", "--test")
    assert hammer(portal.port, key, requests=1500, threads=8) == {200: 1000, 429: 500}
    status, headers, answer = call(portal.port, key)
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["Retry-After"]) <= 60
