"""The figures of a run as Markdown: each gateway's own, and the portal's as a ratio to the others'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Gate = tuple[str, str, bool]


def added(quantile: str) -> Callable[[Row], float]:
    """Return what tells how much later a gateway answers than the provider itself, asked at the same rate."""
    return lambda row: float(row["rate"][quantile] - row["direct"][quantile])


FIGURES: tuple[tuple[str, Callable[[Row], float], int], ...] = (
    ("requests/s, 16 in flight", lambda row: row["c16"]["per_second"], 0),
    ("CPU ms per request", lambda row: row["c16"]["cpu_ms"], 3),
    ("p50 ms at a fixed rate", lambda row: row["rate"]["p50_ms"], 2),
    ("p99 ms at a fixed rate", lambda row: row["rate"]["p99_ms"], 2),
    ("the provider's own p50 ms at that rate", lambda row: row["direct"]["p50_ms"], 2),
    ("the provider's own p99 ms at that rate", lambda row: row["direct"]["p99_ms"], 2),
    ("added p50 ms at a fixed rate", added("p50_ms"), 2),
    ("added p99 ms at a fixed rate", added("p99_ms"), 2),
    ("p99 ms, 64 in flight", lambda row: row["c64"]["p99_ms"], 1),
    ("memory MiB, 64 in flight", lambda row: row["c64"]["memory_mib"], 0),
    ("streams complete", lambda row: row["streams"]["complete"], 0),
    ("first event p50 ms", lambda row: row["streams"]["first_p50_ms"], 1),
    ("first event p99 ms", lambda row: row["streams"]["first_p99_ms"], 1),
    ("CPU ms per event", lambda row: row["streams"]["cpu_ms"], 3),
    ("seconds from start to first answer", lambda row: row["start_s"], 2),
)


def text(rows: list[Row], gates: list[Gate], notes: list[str]) -> str:
    """Return the whole report."""
    names = [row["name"] for row in rows]
    portal = next((row for row in rows if row["name"] == "portal"), None)
    others = [row for row in rows if portal is not None and row is not portal]
    head = ["figure", *names, *(f"portal / {row['name']}" for row in others)]
    lines = ["", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for title, figure, digits in FIGURES:
        own = [f"{figure(row):,.{digits}f}" for row in rows]
        ratios = [_ratio(figure(portal), figure(row)) for row in others] if portal is not None else []
        lines.append("| " + " | ".join([title, *own, *ratios]) + " |")
    lines += ["", "| gate | found | |", "| --- | ---: | --- |"]
    lines += [f"| {title} | {found} | {'held' if held else 'FAILED'} |" for title, found, held in gates]
    busiest = max((row[point]["own_cpu"] for row in rows for point in ("c16", "c64")), default=0.0)
    lines += [
        "",
        f"The load generator used at most {busiest:.0%} of a core; near 100 % the fastest is measured too low.",
    ]
    return "\n".join([*lines, *notes])


def _ratio(one: float, other: float) -> str:
    # A machine that is busy with something else may answer sooner through a gateway, which is no ratio.
    return f"{one / other:.2f}" if one > 0 and other > 0 else "-"
