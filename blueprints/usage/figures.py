"""The charts and tables of the usage page: a title, a sentence with the finding, bars, and all the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blueprints.charts import Chart, bar_chart, day_in_full, day_label, part_label
from blueprints.presenters import UsageRow, provider_title, usage_rows
from blueprints.template_tools import compact, money, percent, plural, thousands
from services import time_zones
from services.gateway.simulator import PROVIDER as SIMULATOR
from services.usage import DAY, Figures, Part, Period, Report

_TALL, _SMALL = 170, 106
_HOURS_LABELLED = 4
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart with what it says. ``kinds`` are the looks of its series and ``names`` what they stand for."""

    title: str
    finding: str
    chart: Chart
    heads: list[str]
    rows: list[tuple[str, list[int]]]
    kinds: tuple[str, ...] = ("b1", "b2", "b3")
    names: tuple[str, ...] = ()
    unit: str = ""

    @property
    def anything(self) -> bool:
        """Whether there is a bar to draw."""
        return any(any(numbers) for _, numbers in self.rows)


@dataclass(frozen=True, slots=True)
class NameTable:
    """Figures by key, by model or by provider, the most requests first."""

    name: str
    title: str
    rows: list[UsageRow]


def plots_of(report: Report, minutes: Sequence[int] | None, limit: int) -> list[Plot]:
    """Return the charts of a report; with ``minutes`` also the busiest minutes against the limit of the workspace."""
    unit = "hour" if report.period.step < DAY else "day"
    found = [_requests(report, unit), _failed(report, unit), _limited(report, unit)]
    found += [_tokens(report, unit), _cost(report, unit)]
    if minutes is not None:
        found.append(_busiest(report, minutes, limit))
    return found


def span(period: Period) -> str:
    """Return what a period is, in words: ``7 to 20 Nov 2026, days in UTC``."""
    first, last = (moment.astimezone(period.zone) for moment in (period.start, period.end - timedelta(seconds=1)))
    zone = time_zones.name_of(period.zone)
    if period.step < DAY:
        return f"{day_label(first)}, {first:%H:%M} to {day_in_full(last)}, {last:%H:%M}, hours in {zone}."
    if first.date() == last.date():
        return f"{day_in_full(last)} in {zone}."
    begin = f"{first.day}" if first.month == last.month else day_label(first)
    return f"{begin} to {day_in_full(last)}, days in {zone}."


def table_of(
    name: str,
    title: str,
    figures: Mapping[str | None, Figures],
    title_of: Callable[[str | None], str],
    address: Callable[..., str],
) -> NameTable:
    """Return the figures by name as rows, each with the address that asks for it alone."""
    return NameTable(name, title, usage_rows(figures, title_of, lambda one: address(**{name: one})))


def _requests(report: Report, unit: str) -> Plot:
    numbers = [part.figures.requests for part in report.parts]
    finding = f"{thousands(sum(numbers))} in all{_most(report, numbers, thousands)}."
    return _plot(report, f"Requests per {unit}", finding, ["Requests"], [[number] for number in numbers], _TALL)


def _failed(report: Report, unit: str) -> Plot:
    numbers = [part.figures.failed for part in report.parts]
    share = percent(report.total.failed, report.total.requests)
    finding = f"{thousands(sum(numbers))} in all ({share}){_most(report, numbers, thousands)}."
    stacks = [[number] for number in numbers]
    return _plot(
        report, f"Failed per {unit}", finding if sum(numbers) else "None.", ["Failed"], stacks, _SMALL, ("b2",)
    )


def _limited(report: Report, unit: str) -> Plot:
    numbers = [part.figures.limited for part in report.parts]
    finding = f"{plural(sum(numbers), 'call')} got error 429{_most(report, numbers, thousands)}."
    stacks = [[number] for number in numbers]
    title = f"Refused by the limit per {unit}"
    return _plot(report, title, finding if sum(numbers) else "None.", ["Refused"], stacks, _SMALL, ("b2",))


def _tokens(report: Report, unit: str) -> Plot:
    stacks = [[part.figures.input_tokens, part.figures.output_tokens] for part in report.parts]
    total, most = report.total, _most(report, [sum(stack) for stack in stacks], compact)
    finding = f"{thousands(total.input_tokens)} in and {thousands(total.output_tokens)} out{most}."
    return _plot(report, f"Tokens per {unit}", finding, ["Input", "Output"], stacks, _TALL)


def _cost(report: Report, unit: str) -> Plot:
    """Stack the dearest providers and put the others together, so that three are told apart at most."""
    ranked = sorted(
        (name for name in report.by_provider if name not in (None, SIMULATOR)),
        key=lambda name: (-report.by_provider[name].cost_nano_usd, name or ""),
    )
    alone = ranked if len(ranked) <= _DEEPEST else ranked[: _DEEPEST - 1]
    names = [provider_title(name) for name in alone] + (["Others"] if len(ranked) > len(alone) else [])
    stacks = [_costs(part, alone, others=len(names) > len(alone)) for part in report.parts]
    total, most = report.total, _most(report, [sum(stack) for stack in stacks], money)
    finding = f"{money(total.cost_nano_usd)} in all{most}."
    if total.unknown:
        left_out = "is" if total.unknown == 1 else "are"
        finding += f" {plural(total.unknown, 'call')} of unknown price {left_out} not in it."
    if total.estimated:
        finding += f" {plural(total.estimated, 'call')} {'is' if total.estimated == 1 else 'are'} estimated."
    return _plot(report, f"Cost per {unit}", finding, names or ["Cost"], stacks, _TALL, unit="usd")


def _costs(part: Part, alone: Sequence[str | None], *, others: bool) -> list[int]:
    costs = [part.by_provider[name].cost_nano_usd if name in part.by_provider else 0 for name in alone]
    rest = part.figures.cost_nano_usd - sum(costs)
    return [*costs, rest] if others or not costs else costs


def _busiest(report: Report, minutes: Sequence[int], limit: int) -> Plot:
    finding = f"At most {plural(max(minutes), 'call')} in a minute"
    finding += f"; {thousands(limit)} are allowed, the red line." if limit else "."
    stacks = [[number] for number in minutes]
    title = "Busiest minute per hour, all keys"
    return _plot(report, title, finding, ["Calls in the busiest minute"], stacks, _SMALL, ("b1",), limit=limit or None)


def _plot(
    report: Report,
    title: str,
    finding: str,
    heads: list[str],
    stacks: list[list[int]],
    field: int,
    kinds: tuple[str, ...] = ("b1", "b2", "b3"),
    unit: str = "",
    limit: int | None = None,
) -> Plot:
    step = report.period.step
    days = step >= DAY
    begins = [part.start.astimezone(report.period.zone) for part in report.parts]
    labels = [part_label(begin, step) for begin in begins]
    chart = bar_chart(
        labels,
        stacks,
        field,
        last="today" if days else "now",
        limit=limit,
        **({} if days else {"every": _HOURS_LABELLED}),
    )
    # Only where clocks change does an hour need more than its time of day.
    told_apart = len({begin.utcoffset() for begin in begins}) > 1
    rows = [(_row_head(begin, days, told_apart), numbers) for begin, numbers in zip(begins, stacks, strict=True)]
    names = tuple(heads) if len(heads) > 1 else ()
    head = "Day" if days else f"Hour, {time_zones.name_of(report.period.zone)}"
    return Plot(title, finding, chart, [head, *heads], rows, kinds, names, unit)


def _row_head(begin: datetime, days: bool, told_apart: bool) -> str:
    day = day_in_full(begin)
    if days:
        return day
    zone = f" {time_zones.abbreviation(begin, begin.tzinfo or UTC)}" if told_apart else ""
    return f"{day}, {begin:%H:%M}{zone}"


def _most(report: Report, numbers: Sequence[int], words: Callable[[int], str]) -> str:
    """Return ``, at most 980 on 18 Nov``, or nothing when there is nothing."""
    highest = max(numbers, default=0)
    if not highest:
        return ""
    begin = report.parts[list(numbers).index(highest)].start.astimezone(report.period.zone)
    label = part_label(begin, report.period.step)
    return f", at most {words(highest)} {'on' if report.period.step >= DAY else 'from'} {label}"
