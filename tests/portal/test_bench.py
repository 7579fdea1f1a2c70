"""The benchmark's report: what is told of several rounds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench import table


def a_round(calls: float, first_event: float = 10.0, complete: int = 1000, added: float = 2.0) -> dict[str, Any]:
    point = {"per_second": calls, "cpu_ms": 0.5, "p50_ms": 1.0, "p99_ms": 5.0, "memory_mib": 90.0, "own_cpu": 0.4}
    streams = {"complete": complete, "first_p50_ms": first_event, "first_p99_ms": first_event, "cpu_ms": 0.1}
    rate = {**point, "p50_ms": 1.0 + added}
    return {"c16": point, "rate": rate, "c64": point, "direct": point, "streams": streams}


@pytest.fixture
def report() -> dict[str, list[str]]:
    """Two gateways whose machine was twice as slow in the second round."""
    portal = table.Row("portal", [a_round(900), a_round(300, 900.0, 990, added=-0.1), a_round(800)], 1.5)
    other = table.Row("pass-through", [a_round(1000), a_round(600), a_round(4000)], 0.5)
    lines = table.text([portal, other], [("errors", "0", True)], ["a note"]).splitlines()
    return {cells[0]: cells[1:] for line in lines if (cells := line.strip("| ").split(" | "))}


def test_a_figure_is_the_middle_of_its_rounds_and_a_ratio_the_middle_of_their_ratios(
    report: dict[str, list[str]],
) -> None:
    assert report["requests/s, 16 in flight"] == ["800", "1,000", "0.50"]


def test_what_every_round_must_hold_is_told_by_the_worst(report: dict[str, list[str]]) -> None:
    assert report["first event p99 ms"][:2] == ["900.0", "10.0"]
    assert report["streams complete"][:2] == ["990", "1,000"]


def test_where_a_round_added_nothing_there_is_no_ratio(report: dict[str, list[str]]) -> None:
    assert report["added p50 ms at a fixed rate"] == ["2.00", "2.00", "-"]


def test_the_start_is_told_once(report: dict[str, list[str]]) -> None:
    assert report["seconds from start to first answer"] == ["1.50", "0.50", "3.00"]


def test_what_was_not_seen_is_a_dash() -> None:
    silent = table.Row("Portkey", [a_round(300, first_event=math.nan, complete=0)], 0.5)
    lines = table.text([table.Row("portal", [a_round(900)], 1.5), silent], [], []).splitlines()
    assert "| first event p50 ms | 10.0 | - | - |" in lines
    assert "| streams complete | 1,000 | 0 | - |" in lines


def test_gates_and_notes_are_told(report: dict[str, list[str]]) -> None:
    assert report["errors"] == ["0", "held"]
    assert "a note" in report
