"""The names of tests."""

from __future__ import annotations

import time

import pytest

_DAY = 86_400
_DIGITS = 6


def test_no_name_of_a_test_holds_the_moment_of_its_collection(request: pytest.FixtureRequest) -> None:
    """Workers that collect a moment apart would not agree on what there is to run, and nothing would be run."""
    now = int(time.time())
    moments = {str(moment)[:_DIGITS] for moment in range(now - _DAY, now + _DAY, 1000)}
    assert [item.nodeid for item in request.session.items if any(moment in item.nodeid for moment in moments)] == []
