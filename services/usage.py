"""Usage in figures: what the calls of a workspace came to, in total and by day, key, model and provider.

All figures come from the usage rows themselves, so they agree with each other and with the list of calls to the unit.
A part of a period is a query of its own: a day's rows are grouped faster than a month's, and a day begins at midnight
in the zone that is asked for, whatever zone the database thinks in. A day on which clocks change has 23 or 25 hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, String, and_, func, or_, select
from sqlalchemy import exc as database_errors
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from extensions import db
from models import ApiKey, UsageRecord, Workspace
from models.base import now
from services import time_zones
from services.errors import DatabaseAway, NotFound
from services.gate import REASONS
from services.gateway.simulator import PROVIDER as SIMULATOR

# Stands for the calls that people make at the playground, without a key.
PLAYGROUND = "playground"
# A caller may ask for any model name; more of them than this are shown together.
MOST_NAMES = 200
OTHERS = "…"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_CALLS_AT_ONCE = 1000
# What a list of calls has no use for.
_NOT_SHOWN = {"workspace_id", "secret_id", "user_id", "details", "process_id"}

# An attempt with an ended secret is no use of anything.
COUNTED = or_(UsageRecord.code.is_(None), UsageRecord.code != "invalid_api_key")
# The caller who hangs up has what it wanted; every other code tells of a failure, also after the first byte.
_FAILED = or_(UsageRecord.status >= 400, and_(UsageRecord.code.is_not(None), UsageRecord.code != "caller_hung_up"))
_LIMITED = UsageRecord.code == "rate_limit_exceeded"
# What a provider was asked and nobody knows the price of. A call in progress has no cost yet.
UNKNOWN_COST = and_(
    UsageRecord.cost_nano_usd.is_(None),
    UsageRecord.ended_at.is_not(None),
    UsageRecord.provider.is_not(None),
    UsageRecord.provider != SIMULATOR,
)
# What the gate refuses does not count against the rate, but for the one check that comes after it.
_REFUSALS = [code for code in REASONS if code != "spending_limit_reached"]
_LET_IN = or_(UsageRecord.code.is_(None), UsageRecord.code.not_in(_REFUSALS))


@dataclass(slots=True)
class Figures:
    """What some calls came to. ``cost_nano_usd`` is the sum of the known costs; ``unknown`` counts the others."""

    requests: int = 0
    failed: int = 0
    limited: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    unknown: int = 0
    estimated: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def succeeded(self) -> int:
        return self.requests - self.failed

    def add(self, more: Figures) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(more, name))


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time, its end not included, and the parts that its figures are told for.

    ``start`` and ``end`` are in UTC; the hours and days are those of the zone.
    """

    start: datetime
    end: datetime
    step: timedelta
    zone: tzinfo = UTC

    def parts(self) -> Iterator[tuple[datetime, datetime]]:
        """Yield beginning and end of each part, in UTC: hours or days, the first and last as far as they belong."""
        begin = self.start
        while begin < self.end:
            end = min(_next(begin, self.step, self.zone), self.end)
            yield begin, end
            begin = end


@dataclass(frozen=True, slots=True)
class Wanted:
    """The calls that are asked for; None means all. ``key_id`` may be ``PLAYGROUND``."""

    key_id: str | None = None
    model: str | None = None
    provider: str | None = None

    @property
    def all(self) -> bool:
        return self == Wanted()

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [COUNTED]
        if self.key_id is not None:
            found.append(_of_key(self.key_id))
        if self.model is not None:
            found.append(UsageRecord.model == self.model)
        if self.provider is not None:
            found.append(UsageRecord.provider == self.provider)
        return found


ALL = Wanted()


@dataclass(slots=True)
class Part:
    """The figures of one hour or day, and those of its calls by provider."""

    start: datetime
    figures: Figures = field(default_factory=Figures)
    by_provider: dict[str | None, Figures] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """The figures of a period. Names are None for calls that had no key, model or provider.

    ``models`` and ``providers`` are the names that could be asked for, whichever were.
    """

    period: Period
    total: Figures = field(default_factory=Figures)
    parts: list[Part] = field(default_factory=list)
    by_key: dict[str | None, Figures] = field(default_factory=dict)
    by_model: dict[str | None, Figures] = field(default_factory=dict)
    by_provider: dict[str | None, Figures] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    providers: set[str] = field(default_factory=set)


def last_hours(hours: int = 24, zone: tzinfo = UTC) -> Period:
    """The present hour and those before it."""
    end = _next(now(), HOUR, zone)
    return Period(end - hours * HOUR, end, HOUR, zone)


def last_days(days: int, zone: tzinfo = UTC) -> Period:
    """Today and the days before it."""
    at = now()
    first = time_zones.day_of(at, zone) - (days - 1) * DAY
    return Period(time_zones.beginning_of(first, zone), _next(at, DAY, zone), DAY, zone)


def this_month(zone: tzinfo = UTC) -> Period:
    """The month up to the end of today. Spending limits count by the month in UTC."""
    at = now()
    first = time_zones.day_of(at, zone).replace(day=1)
    return Period(time_zones.beginning_of(first, zone), _next(at, DAY, zone), DAY, zone)


def report(workspace: Workspace, period: Period, wanted: Wanted = ALL) -> Report:
    """Return the figures of a period. Raises DatabaseAway."""
    found = Report(period)
    with _away():
        for begin, end in period.parts():
            part = Part(begin)
            found.parts.append(part)
            for row in db.session.execute(_grouped(workspace, begin, end, wanted.key_id)):
                _take(found, part, row, wanted)
    return found


def total(workspace: Workspace, period: Period, wanted: Wanted = ALL) -> Figures:
    """Return the sums of a period alone, which take a fraction of the time. Raises DatabaseAway."""
    query = select(*_sums()).where(*_within(workspace, period.start, period.end), *wanted.conditions())
    with _away():
        return _figures(db.session.execute(query).one())


def minutes(workspace: Workspace, period: Period) -> list[int]:
    """Return, for each part of the period, the calls of its busiest minute that counted against the rate.

    Raises DatabaseAway.
    """
    busiest = []
    with _away():
        for begin, end in period.parts():
            counts = (
                select(func.count().label("calls"))
                .where(*_within(workspace, begin, end), COUNTED, _LET_IN)
                .group_by(_minute(UsageRecord.started_at))
                .subquery()
            )
            busiest.append(db.session.scalar(select(func.coalesce(func.max(counts.c.calls), 0))) or 0)
    return busiest


def has_calls(workspace: Workspace) -> bool:
    """Tell whether the workspace was ever called. Raises DatabaseAway."""
    query = select(UsageRecord.id).where(UsageRecord.workspace_id == workspace.id, COUNTED).limit(1)
    with _away():
        return db.session.scalar(query) is not None


def calls(workspace: Workspace, period: Period, wanted: Wanted = ALL) -> Iterator[Row[Any]]:
    """Return every call of a period, the oldest first: the columns of its row, and ``key_name``.

    However many there are, only some are in memory, and no transaction stays open between them. Reading on raises
    DatabaseAway.
    """
    query = _listed(workspace, period, wanted).order_by(UsageRecord.started_at, UsageRecord.id)
    return _read_on(query.limit(_CALLS_AT_ONCE))


def page(
    workspace: Workspace, period: Period, wanted: Wanted, *, limit: int, before: int | None = None
) -> tuple[Sequence[Row[Any]], bool]:
    """Return calls of a period like ``calls``, but the latest first, from before the row with that number.

    Tells also whether more follow. Raises NotFound for a number that is no row of the workspace, and DatabaseAway.
    """
    query = _listed(workspace, period, wanted).order_by(UsageRecord.started_at.desc(), UsageRecord.id.desc())
    with _away():
        if before is not None:
            query = query.where(*_before(_row_numbered(workspace, before)))
        found = db.session.execute(query.limit(limit + 1)).all()
    return found[:limit], len(found) > limit


def cost_is_unknown(call: Row[Any] | UsageRecord) -> bool:
    """Tell for one row what ``Figures.unknown`` counts."""
    return call.cost_nano_usd is None and call.ended_at is not None and call.provider not in (None, SIMULATOR)


class _minute(FunctionElement[str]):  # noqa: N801 - named as SQL functions are
    """The minute that a moment is in, in whatever form the database groups by best."""

    type = String()
    inherit_cache = True


@compiles(_minute, "sqlite")
def _minute_of_text(element: Any, compiler: Any, **more: Any) -> str:
    return f"substr({compiler.process(element.clauses, **more)}, 1, 16)"


@compiles(_minute, "postgresql")
def _minute_of_moment(element: Any, compiler: Any, **more: Any) -> str:
    return f"date_trunc('minute', {compiler.process(element.clauses, **more)})"


@contextmanager
def _away() -> Iterator[None]:
    """Say DatabaseAway for whatever keeps the database from answering; the session can be used again."""
    try:
        yield
    except (database_errors.OperationalError, database_errors.InterfaceError, database_errors.TimeoutError) as error:
        db.session.rollback()
        raise DatabaseAway from error


def _grouped(workspace: Workspace, begin: datetime, end: datetime, key_id: str | None) -> Select[Any]:
    names = (UsageRecord.api_key_id, UsageRecord.model, UsageRecord.provider)
    query: Select[Any] = select(*names, *_sums()).where(*_within(workspace, begin, end), COUNTED).group_by(*names)
    return query if key_id is None else query.where(_of_key(key_id))


def _sums() -> list[ColumnElement[Any]]:
    """What Figures is made of, in its order."""
    return [
        func.count(),
        func.count().filter(_FAILED),
        func.count().filter(_LIMITED),
        func.sum(UsageRecord.input_tokens),
        func.sum(UsageRecord.cached_input_tokens),
        func.sum(UsageRecord.output_tokens),
        func.sum(UsageRecord.cost_nano_usd),
        func.count().filter(UNKNOWN_COST),
        func.count().filter(UsageRecord.estimated),
    ]


def _figures(sums: Any) -> Figures:
    return Figures(*(int(value or 0) for value in sums))


def _take(found: Report, part: Part, row: Any, wanted: Wanted) -> None:
    """Add what one group of calls came to, where it belongs."""
    key_id, model, provider, *sums = row
    for name, names in ((model, found.models), (provider, found.providers)):
        if name is not None and len(names) < MOST_NAMES:
            names.add(name)
    if wanted.model not in (None, model) or wanted.provider not in (None, provider):
        return
    figures = _figures(sums)
    for added_to in (found.total, part.figures):
        added_to.add(figures)
    for name, sums_by_name in (
        (key_id, found.by_key),
        (model, found.by_model),
        (provider, found.by_provider),
        (provider, part.by_provider),
    ):
        known = name in sums_by_name or len(sums_by_name) < MOST_NAMES
        sums_by_name.setdefault(name if known else OTHERS, Figures()).add(figures)


def _read_on(query: Select[Any]) -> Iterator[Row[Any]]:
    found: Sequence[Row[Any]] = ()
    while not found or len(found) == _CALLS_AT_ONCE:
        with _away():
            found = db.session.execute(query.where(*_after(found[-1])) if found else query).all()
            db.session.rollback()
        yield from found
        if not found:
            return


def _listed(workspace: Workspace, period: Period, wanted: Wanted) -> Select[Any]:
    shown = (column for column in UsageRecord.__table__.columns if column.name not in _NOT_SHOWN)
    query = select(*shown, ApiKey.name.label("key_name")).outerjoin(ApiKey, ApiKey.id == UsageRecord.api_key_id)
    return query.where(*_within(workspace, period.start, period.end), *wanted.conditions())


def _row_numbered(workspace: Workspace, number: int) -> Row[datetime, int]:
    query = select(UsageRecord.started_at, UsageRecord.id)
    row = db.session.execute(query.where(UsageRecord.workspace_id == workspace.id, UsageRecord.id == number)).first()
    if row is None:
        raise NotFound
    return row


def _after(row: Any) -> tuple[ColumnElement[bool], ...]:
    # The first condition alone finds the place in the index.
    later = or_(UsageRecord.started_at > row.started_at, UsageRecord.id > row.id)
    return (UsageRecord.started_at >= row.started_at, later)


def _before(row: Any) -> tuple[ColumnElement[bool], ...]:
    earlier = or_(UsageRecord.started_at < row.started_at, UsageRecord.id < row.id)
    return (UsageRecord.started_at <= row.started_at, earlier)


def _within(workspace: Workspace, begin: datetime, end: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        UsageRecord.workspace_id == workspace.id,
        UsageRecord.started_at >= begin,
        UsageRecord.started_at < end,
    )


def _of_key(key_id: str) -> ColumnElement[bool]:
    return UsageRecord.api_key_id.is_(None) if key_id == PLAYGROUND else UsageRecord.api_key_id == key_id


def _next(moment: datetime, step: timedelta, zone: tzinfo) -> datetime:
    """Return the moment in UTC at which the hour or day after that of a moment begins."""
    if step == HOUR:
        return time_zones.hour_at(moment, zone) + HOUR
    return time_zones.beginning_of(time_zones.day_of(moment, zone) + DAY, zone)
