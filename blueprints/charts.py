"""The geometry of charts: numbers of hours or days become bars, so that a template only draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

WIDTH, LEFT, TOP = 940, 56, 12
LABEL_EVERY = 5
# So many bars leave room for a label below each, and for wider gaps.
MOST_LABELLED = 16
_GAP, _WIDE_GAP = 8, 17


@dataclass(frozen=True, slots=True)
class ChartBar:
    """A bar, or one of several on top of each other; ``series`` counts them from 1.

    ``label`` stands below some of them only; ``part`` marks the hour or day that is not over.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    part: bool
    series: int = 1

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True, slots=True)
class GridLine:
    """A line across the chart and the number it stands for."""

    y: float
    number: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars and lines in a field of ``width`` by ``height``; ``limit`` is a line that the bars must stay below."""

    width: int
    height: int
    left: int
    bars: list[ChartBar]
    grid: list[GridLine]
    limit: GridLine | None = None


def day_chart(days: Sequence[date], numbers: Sequence[int], field: int) -> Chart:
    """Return the chart of one number for each day, the oldest first and today last; ``field`` is the bars' height."""
    return bar_chart([day_label(day) for day in days], [[number] for number in numbers], field, last="today")


def bar_chart(
    labels: Sequence[str],
    stacks: Sequence[Sequence[int]],
    field: int,
    *,
    last: str,
    limit: int | None = None,
    every: int = LABEL_EVERY,
) -> Chart:
    """Return the chart of some numbers for each hour or day, on top of each other, the oldest first.

    The last stack is not over yet and has a label of its own. If there is no room for all labels, ``every`` so many
    there is one.
    """
    top = round_up(max([limit or 0, *(sum(stack) for stack in stacks)]))
    bottom = TOP + field
    roomy = len(stacks) <= MOST_LABELLED
    step, gap = (WIDTH - LEFT) / max(1, len(stacks)), _WIDE_GAP if roomy else _GAP
    bars = []
    for place, (label, stack) in enumerate(zip(labels, stacks, strict=True)):
        from_end = len(stacks) - 1 - place
        shown = last if from_end == 0 else label if roomy or from_end % every == 0 else ""
        x, y = round(LEFT + place * step + gap / 2, 1), float(bottom)
        for series, number in enumerate(stack, start=1):
            height = round(number / top * field, 1)
            y = round(y - height, 1)
            below = shown if series == 1 else ""
            bars.append(ChartBar(x, y, round(step - gap, 1), height, below, from_end == 0, series))
    grid = [GridLine(bottom - field * part / 2 + 0.5, top * part // 2) for part in range(3)]
    line = None if limit is None else GridLine(round(bottom - limit / top * field, 1), limit)
    return Chart(WIDTH, bottom + 32, LEFT, bars, grid, line)


def day_label(day: date) -> str:
    """Return ``9 Nov``."""
    return f"{day.day} {day:%b}"


def day_in_full(day: date) -> str:
    """Return ``9 Nov 2026``."""
    return f"{day.day} {day:%b %Y}"


def part_label(begin: datetime, step: timedelta) -> str:
    """Return what stands below the bar of a part of a period: a day, or the time at which an hour begins."""
    return day_label(begin) if step >= timedelta(days=1) else f"{begin:%H:%M}"


def round_up(number: int) -> int:
    """Return the next of 2, 4, 10, 20, 40, 100, ...: its half is a whole number too."""
    size = 1
    while True:
        for first in (2, 4, 10):
            if number <= first * size:
                return first * size
        size *= 10
