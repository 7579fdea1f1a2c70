"""The figures of a run as Markdown: each gateway's own, and the portal's as a ratio to the others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from statistics import median
from typing import Any

Round = dict[str, Any]
Figure = Callable[[Round], float]
Gate = tuple[str, str, bool]


@dataclass
class Row:
    """What was measured of one gateway, round by round. Those of one number were measured side by side.

    ``start_s`` is how long it took to start, the quickest of its starts.
    """

    name: str
    rounds: list[Round]
    start_s: float = 0.0


def added(quantile: str) -> Figure:
    """Return what tells how much later a gateway answers than the provider itself, asked at the same rate."""
    return lambda one: float(one["rate"][quantile] - one["direct"][quantile])


# What is promised of every round is judged by the worst.
WORST = {"streams complete": min, "first event p99 ms": max}
FIGURES: tuple[tuple[str, Figure, int], ...] = (
    ("requests/s, 16 in flight", lambda one: one["c16"]["per_second"], 0),
    ("CPU ms per request", lambda one: one["c16"]["cpu_ms"], 3),
    ("p50 ms at a fixed rate", lambda one: one["rate"]["p50_ms"], 2),
    ("p99 ms at a fixed rate", lambda one: one["rate"]["p99_ms"], 2),
    ("the provider's own p50 ms at that rate", lambda one: one["direct"]["p50_ms"], 2),
    ("the provider's own p99 ms at that rate", lambda one: one["direct"]["p99_ms"], 2),
    ("added p50 ms at a fixed rate", added("p50_ms"), 2),
    ("added p99 ms at a fixed rate", added("p99_ms"), 2),
    ("p99 ms, 64 in flight", lambda one: one["c64"]["p99_ms"], 1),
    ("memory MiB, 64 in flight", lambda one: one["c64"]["memory_mib"], 0),
    ("streams complete", lambda one: one["streams"]["complete"], 0),
    ("first event p50 ms", lambda one: one["streams"]["first_p50_ms"], 1),
    ("first event p99 ms", lambda one: one["streams"]["first_p99_ms"], 1),
    ("CPU ms per event", lambda one: one["streams"]["cpu_ms"], 3),
)


def text(rows: list[Row], gates: list[Gate], notes: list[str]) -> str:
    """Return the whole report."""
    portal = next((row for row in rows if row.name == "portal"), None)
    others = [row for row in rows if portal is not None and row is not portal]
    head = ["figure", *(row.name for row in rows), *(f"portal / {row.name}" for row in others)]
    lines = ["", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for title, figure, digits in FIGURES:
        pick = WORST.get(title, median)
        own = [_told(pick, [figure(one) for one in row.rounds], digits) for row in rows]
        ratios = [_ratio(figure, portal, row) for row in others] if portal is not None else []
        lines.append("| " + " | ".join([title, *own, *ratios]) + " |")
    starts = [f"{row.start_s:.2f}" for row in rows]
    starts += [f"{portal.start_s / row.start_s:.2f}" for row in others] if portal is not None else []
    lines.append("| " + " | ".join(["seconds from start to first answer", *starts]) + " |")
    lines += ["", "| gate | found | |", "| --- | ---: | --- |"]
    lines += [f"| {title} | {found} | {'held' if held else 'FAILED'} |" for title, found, held in gates]
    points = [one[point] for row in rows for one in row.rounds for point in ("c16", "c64")]
    busiest = max((point["own_cpu"] for point in points), default=0.0)
    lines += [
        "",
        f"The load generator used at most {busiest:.0%} of a core; near 100 % the fastest is measured too low.",
    ]
    return "\n".join([*lines, *notes])


def _told(pick: Callable[[list[float]], float], values: list[float], digits: int) -> str:
    # What did not answer took no time: it was not seen.
    return "-" if isnan(sum(values)) else f"{pick(values):,.{digits}f}"


def _ratio(figure: Figure, one: Row, other: Row) -> str:
    """Return the middle of the ratios of each round, a dash unless every round has one."""
    pairs = [(figure(a), figure(b)) for a, b in zip(one.rounds, other.rounds, strict=True)]
    # A machine that is busy with something else may answer sooner through a gateway, which is no ratio.
    ratios = [a / b for a, b in pairs if a > 0 and b > 0]
    return f"{median(ratios):.2f}" if len(ratios) == len(pairs) else "-"
