"""The counters of spending limits: what their owners spent in a UTC day or month, and what calls in progress hold.

The costs in the usage rows are the truth: a counter is made from them, and a call belongs to the periods in which it
began. Whoever changes the counters of a workspace is alone with them (``lock_name``), so that no two calls are let in
for the same money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from models import SpendingCounter, SpendingHold, UsageRecord
from models.base import now
from models.quick import Act, Prepared, Quick
from services import server_processes
from services.money import as_usd

PERIODS = ("day", "month")
# A call that began before its limit was set holds nothing and is counted again for so long.
_RECOUNTED_FOR = timedelta(hours=1)
_KEPT_FOR = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Limit:
    """What an owner, a key or its workspace, may spend in one period."""

    whose: str
    owner_id: str
    # ``day`` or ``month``, and when it began.
    period: str
    began: datetime
    nano_usd: int

    @property
    def counter(self) -> str:
        """The name of the period in its counter: ``2026-11-21`` or ``2026-11``."""
        return counter_period(self.period, self.began)

    @property
    def resets_at(self) -> datetime:
        return period_end(self.period, self.began)


@dataclass(frozen=True, slots=True)
class Counted:
    """A limit with what is spent and held of it."""

    limit: Limit
    spent: int
    held: int

    @property
    def left(self) -> int:
        return self.limit.nano_usd - self.spent - self.held

    def details(self) -> dict[str, Any]:
        """What a refusal tells the caller."""
        return {
            "whose": self.limit.whose,
            "period": self.limit.period,
            "limit_usd": as_usd(self.limit.nano_usd),
            "spent_usd": as_usd(self.spent),
            "held_usd": as_usd(self.held),
            "resets_at": f"{self.limit.resets_at:%Y-%m-%dT%H:%M:%SZ}",
        }


def lock_name(workspace_id: str) -> str:
    """The name under which whoever changes a workspace's counters is alone."""
    return f"spending:{workspace_id}"


def period_start(period: str, at: datetime) -> datetime:
    """Return when the UTC day or month of that moment began."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day if period == "day" else day.replace(day=1)


def period_end(period: str, at: datetime) -> datetime:
    """Return when the UTC day or month of that moment ends, and its limit starts anew."""
    began = period_start(period, at)
    return began + timedelta(days=1) if period == "day" else (began + timedelta(days=32)).replace(day=1)


def counter_period(period: str, at: datetime) -> str:
    """Return the name of the UTC day or month of that moment, such as ``2026-11-21`` or ``2026-11``."""
    return f"{at.astimezone(UTC):{'%Y-%m-%d' if period == 'day' else '%Y-%m'}}"


def known(quick: Quick, key_id: str, workspace_id: str, at: datetime) -> dict[tuple[str, str], tuple[int, int]]:
    """Return spent and held of the counters there are for a call that begins then, by owner and period."""
    found = quick.all(_COUNTERS, {"key": key_id, "workspace": workspace_id, **_periods(at)})
    return {(owner_id, period): (spent, held) for owner_id, period, spent, held in found}


def look(quick: Quick, workspace_id: str, limit: Limit) -> Counted:
    """Return how a limit stands, and write nothing."""
    found = quick.one(_COUNTER, _place(limit)) or (
        _spent(quick, workspace_id, limit),
        _held(quick, workspace_id, limit),
    )
    return Counted(limit, *found)


def count(act: Act, workspace_id: str, limit: Limit) -> Counted:
    """Read a counter; make it from the usage rows and the open holds when there is none."""
    found = act.one(_COUNTER, _place(limit))
    if found is None:
        found = [_spent(act, workspace_id, limit), _held(act, workspace_id, limit)]
        values = {"owner_id": limit.owner_id, "period": limit.counter, "workspace_id": workspace_id}
        act.run(_MAKE, {**values, "spent_nano_usd": found[0], "held_nano_usd": found[1], "created_at": now()})
    return Counted(limit, *found)


def _spent(act: Act | Quick, workspace_id: str, limit: Limit) -> int:
    values = {"workspace_id": workspace_id, "began": limit.began, "ends": limit.resets_at}
    statement = _SUM_OF_KEY if limit.whose == "key" else _SUM
    found = act.one(statement, values | ({"key": limit.owner_id} if limit.whose == "key" else {}))
    # No rows add up to None, and PostgreSQL adds up in decimals.
    return int((found and found[0]) or 0)


def _held(act: Act | Quick, workspace_id: str, limit: Limit) -> int:
    name = f"{limit.owner_id}/{limit.counter}"
    return sum(amount for amount, counters in act.all(_HOLDS, {"workspace_id": workspace_id}) if name in counters)


def keep(act: Act, request_id: str, workspace_id: str, limits: Sequence[Limit], amount: int) -> None:
    for limit in limits:
        act.run(_HOLD, {"amount": amount, **_place(limit)})
    values = {
        "request_id": request_id,
        "workspace_id": workspace_id,
        "process_id": server_processes.own_id(),
        "counters": [f"{limit.owner_id}/{limit.counter}" for limit in limits],
        "nano_usd": amount,
        "created_at": now(),
    }
    act.run(_ADD_HOLD, values)


def release(act: Act, request_id: str) -> None:
    """Give back what a call holds, if it still does. The act must hold ``lock_name``."""
    found = act.one(_FIND_HOLD, {"of_request": request_id})
    if found is None:
        return
    nano_usd, counters = found
    for counter in counters:
        owner_id, _, period = counter.partition("/")
        act.run(_RELEASE, {"amount": nano_usd, "of_owner": owner_id, "in_period": period})
    act.run(_DROP_HOLD, {"of_request": request_id})


def spend(act: Act, workspace_id: str, key_id: str | None, started_at: datetime, cost: int) -> None:
    """Count the cost of a call in every counter that there is for it. The act must hold ``lock_name``."""
    act.run(_SPEND, {"cost": cost, "key": key_id, "workspace": workspace_id, **_periods(started_at)})


def of_dead_processes(quick: Quick) -> list[tuple[str, str]]:
    """Return request and workspace of the calls that hold something for a process that has died."""
    return [(request_id, of) for request_id, of in quick.all(_DEAD_HOLDS, server_processes.moments())]


def recount(quick: Quick) -> None:
    """Count young counters again from the usage rows."""
    for owner_id, period, workspace_id in quick.all(_YOUNG, {"since": now() - _RECOUNTED_FOR}):
        limit = _limit_of_counter(owner_id, period, workspace_id)
        with quick.act() as act:
            act.alone(lock_name(workspace_id))
            act.run(_RECOUNT, {"spent": _spent(act, workspace_id, limit), **_place(limit)})


def forget_old(quick: Quick) -> None:
    """Remove counters of periods that are long over."""
    quick.run(_FORGET, {"before": now() - _KEPT_FOR, **_periods(now())})


def _place(limit: Limit) -> dict[str, str]:
    return {"of_owner": limit.owner_id, "in_period": limit.counter}


def _limit_of_counter(owner_id: str, period: str, workspace_id: str) -> Limit:
    """The owner and period of a counter in the form that sums are made by; its amount does not matter."""
    whose = "workspace" if owner_id == workspace_id else "key"
    name, form = ("day", "%Y-%m-%d") if len(period) == len("2026-11-21") else ("month", "%Y-%m")
    return Limit(whose, owner_id, name, datetime.strptime(period, form).replace(tzinfo=UTC), 0)


def _periods(at: datetime) -> dict[str, str]:
    return {"day": counter_period("day", at), "month": counter_period("month", at)}


_counter = SpendingCounter.__table__.columns
_of_one = (SpendingCounter.owner_id == bindparam("of_owner"), SpendingCounter.period == bindparam("in_period"))
_of_call = (
    SpendingCounter.owner_id.in_([bindparam("key"), bindparam("workspace")]),
    SpendingCounter.period.in_([bindparam("day"), bindparam("month")]),
)
_COUNTERS = Prepared(
    select(
        SpendingCounter.owner_id, SpendingCounter.period, SpendingCounter.spent_nano_usd, SpendingCounter.held_nano_usd
    ).where(*_of_call)
)
_COUNTER = Prepared(select(SpendingCounter.spent_nano_usd, SpendingCounter.held_nano_usd).where(*_of_one))
_MAKE = Prepared(insert(SpendingCounter).values({column.name: bindparam(column.name) for column in _counter}))
_amount = bindparam("amount", type_=_counter["held_nano_usd"].type)
_HOLD = Prepared(update(SpendingCounter).where(*_of_one).values(held_nano_usd=SpendingCounter.held_nano_usd + _amount))
_RELEASE = Prepared(
    update(SpendingCounter).where(*_of_one).values(held_nano_usd=SpendingCounter.held_nano_usd - _amount)
)
_cost = bindparam("cost", type_=_counter["spent_nano_usd"].type)
_SPEND = Prepared(
    update(SpendingCounter).where(*_of_call).values(spent_nano_usd=SpendingCounter.spent_nano_usd + _cost)
)

_ADD_HOLD = Prepared(
    insert(SpendingHold).values({column.name: bindparam(column.name) for column in SpendingHold.__table__.columns})
)
_of_request = SpendingHold.request_id == bindparam("of_request")
_FIND_HOLD = Prepared(select(SpendingHold.nano_usd, SpendingHold.counters).where(_of_request))
_DROP_HOLD = Prepared(delete(SpendingHold).where(_of_request))
_HOLDS = Prepared(
    select(SpendingHold.nano_usd, SpendingHold.counters).where(SpendingHold.workspace_id == bindparam("workspace_id"))
)

_in_time = bindparam("began", type_=UsageRecord.started_at.type), bindparam("ends", type_=UsageRecord.started_at.type)
_sum = select(func.sum(UsageRecord.cost_nano_usd)).where(
    UsageRecord.workspace_id == bindparam("workspace_id"),
    UsageRecord.started_at >= _in_time[0],
    UsageRecord.started_at < _in_time[1],
)
_SUM = Prepared(_sum)
_SUM_OF_KEY = Prepared(_sum.where(UsageRecord.api_key_id == bindparam("key")))

_DEAD_HOLDS = Prepared(
    select(SpendingHold.request_id, SpendingHold.workspace_id).where(
        server_processes.is_dead(SpendingHold.process_id, SpendingHold.created_at)
    )
)
_moment = _counter["created_at"].type
_FORGET = Prepared(
    delete(SpendingCounter).where(
        SpendingCounter.created_at < bindparam("before", type_=_moment),
        SpendingCounter.period.not_in([bindparam("day"), bindparam("month")]),
        SpendingCounter.held_nano_usd == 0,
    )
)
_YOUNG = Prepared(
    select(SpendingCounter.owner_id, SpendingCounter.period, SpendingCounter.workspace_id).where(
        SpendingCounter.created_at >= bindparam("since", type_=_moment)
    )
)
_RECOUNT = Prepared(
    update(SpendingCounter)
    .where(*_of_one)
    .values(spent_nano_usd=bindparam("spent", type_=_counter["spent_nano_usd"].type))
)
