"""The geometry of charts: numbers of days become bars, so that a template only draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

WIDTH, LEFT, TOP, GAP = 940, 48, 12, 8
LABEL_EVERY = 5


@dataclass(frozen=True, slots=True)
class ChartBar:
    """A day's bar; ``label`` stands below some of them only, ``part`` marks the day that is not over."""

    x: float
    y: float
    width: float
    height: float
    label: str
    part: bool

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
    """Bars and lines in a field of ``width`` by ``height``."""

    width: int
    height: int
    left: int
    bars: list[ChartBar]
    grid: list[GridLine]


def day_chart(days: Sequence[date], numbers: Sequence[int], field: int) -> Chart:
    """Return the chart of one number for each day, the oldest first and today last; ``field`` is the bars' height."""
    top = _round_up(max(numbers, default=0))
    bottom = TOP + field
    step = (WIDTH - LEFT) / max(1, len(days))
    bars = []
    for place, (day, number) in enumerate(zip(days, numbers, strict=True)):
        height = round(number / top * field, 1)
        from_end = len(days) - 1 - place
        label = "today" if from_end == 0 else f"{day.day} {day:%b}" if from_end % LABEL_EVERY == 0 else ""
        x = round(LEFT + place * step + GAP / 2, 1)
        bars.append(ChartBar(x, round(bottom - height, 1), round(step - GAP, 1), height, label, from_end == 0))
    grid = [GridLine(bottom - field * part / 2 + 0.5, top * part // 2) for part in range(3)]
    return Chart(WIDTH, bottom + 32, LEFT, bars, grid)


def _round_up(number: int) -> int:
    """Return the next of 2, 4, 10, 20, 40, 100, ...: its half is a whole number too."""
    size = 1
    while True:
        for first in (2, 4, 10):
            if number <= first * size:
                return first * size
        size *= 10
