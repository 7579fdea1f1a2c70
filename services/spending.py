"""Spending limits: daily and monthly, of a key and of its workspace, held before a call and settled after it.

A counter tells what its owner spent in a UTC day or month and what the calls in progress hold of it. The costs in the
usage rows are the truth: a counter is made from them, and a call belongs to the periods in which it began. Whoever
changes the counters of a workspace is alone with them, so that no two calls are let in for the same money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from extensions import db
from models import ApiKey, SpendingCounter, SpendingHold, UsageRecord, Workspace
from models.base import now, one_at_a_time, transaction
from models.quick import Act, DatabaseUnavailable, Prepared, Quick
from services import audit, prices, server_processes
from services.actor import Actor
from services.errors import DatabaseAway, SpendingLimitReached, UnknownPrice
from services.money import as_usd
from services.parts import parts

if TYPE_CHECKING:
    from services.gate import KeyFacts
    from services.metering import Call

# Held for a caller who does not say how long the answer may be.
USUAL_OUTPUT_TOKENS = 4096
PERIODS = ("day", "month")
# A call that began before its limit was set holds nothing and is counted again for so long.
_RECOUNTED_FOR = timedelta(hours=1)
_KEPT_FOR = timedelta(days=3)

# Calls of this process whose hold nobody else is going to release while the process lives, with their workspaces.
_abandoned: dict[str, str] = {}


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


def limits_of(key: KeyFacts, at: datetime) -> list[Limit]:
    """Return the limits that hold for a call of this key that begins then; a test key spends nothing and has none."""
    if key.environment == "test":
        return []
    found = (
        ("key", key.key_id, "day", key.daily_limit_nano_usd),
        ("key", key.key_id, "month", key.monthly_limit_nano_usd),
        ("workspace", key.workspace_id, "day", key.workspace_daily_limit_nano_usd),
        ("workspace", key.workspace_id, "month", key.workspace_monthly_limit_nano_usd),
    )
    return [
        Limit(whose, owner_id, period, period_start(period, at), nano_usd)
        for whose, owner_id, period, nano_usd in found
        if nano_usd is not None
    ]


def reached(quick: Quick, key: KeyFacts) -> Counted | None:
    """Return a limit of which nothing is left. Asks the database only where there is a limit.

    Raises DatabaseUnavailable.
    """
    at = now()
    limits = limits_of(key, at)
    if not limits:
        return None
    found = quick.all(_COUNTERS, {"key": key.key_id, "workspace": key.workspace_id, **_periods(at)})
    rows = {(owner_id, period): (spent, held) for owner_id, period, spent, held in found}
    if all((limit.owner_id, limit.counter) in rows for limit in limits):
        counted = [Counted(limit, *rows[limit.owner_id, limit.counter]) for limit in limits]
    else:
        with quick.act() as act:
            act.alone(lock_name(key.workspace_id))
            counted = [_counted(act, key.workspace_id, limit) for limit in limits]
    return min((one for one in counted if one.left <= 0), key=lambda one: one.left, default=None)


def hold(call: Call, routes: Sequence[tuple[str, str]], *, input_tokens: int, output_tokens: int | None) -> None:
    """Hold what the call may cost at most, where a limit holds for it; ``call.hold`` is the amount.

    ``routes`` are the providers it may go to, each with the model's name there; ``input_tokens`` and ``output_tokens``
    are the most it can take. A caller who does not bound the output (None) gets the price of a usual answer held, or
    what is left if that is less. Raises SpendingLimitReached, UnknownPrice or DatabaseAway.
    """
    limits = limits_of(call.key, call.started_at)
    if not limits:
        return
    bounded = output_tokens is not None
    most = _most(call, routes, limits, input_tokens, USUAL_OUTPUT_TOKENS if output_tokens is None else output_tokens)
    try:
        with parts().quick.act() as act:
            act.alone(lock_name(call.key.workspace_id))
            tightest = min((_counted(act, call.key.workspace_id, limit) for limit in limits), key=lambda one: one.left)
            amount = most if bounded else min(most, tightest.left)
            fits = tightest.left > 0 and amount <= tightest.left
            if fits:
                _keep(act, call, limits, amount)
    except DatabaseUnavailable as error:
        raise DatabaseAway from error
    if not fits:
        raise _refusal(tightest, most if bounded else None)
    call.hold = amount


def settle(act: Act, call: Call, cost_change: int) -> None:
    """Release what the call holds and count what it cost, in the act that keeps its usage row.

    ``cost_change`` is what the row costs now beyond what it cost before: nothing yet, unless the call was taken for
    that of a dead process and completed in its place. An unknown cost counts as nothing.
    """
    settle_request(act, call.request_id, call.key.workspace_id, call.key.key_id, call.started_at, cost_change)


def settle_request(
    act: Act, request_id: str, workspace_id: str, key_id: str | None, started_at: datetime, cost_change: int
) -> None:
    """As ``settle``, for a call known by its usage row. The act must hold ``lock_name``."""
    release(act, request_id)
    if cost_change:
        periods = _periods(started_at)
        act.run(_SPEND, {"cost": cost_change, "key": key_id, "workspace": workspace_id, **periods})


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


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands, for pages: the workspace's or a key's ``title``, and amounts in nano-dollars."""

    title: str
    owner_id: str
    period: str
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int
    resets_at: datetime


def standing(workspace: Workspace) -> list[Standing]:
    """Return every spending limit of the workspace and its living keys, the workspace's first, the day before the
    month. Writes nothing. Raises DatabaseAway."""
    at = now()
    query = select(ApiKey).where(ApiKey.workspace_id == workspace.id, ApiKey.deleted_at.is_(None))
    limited = query.where(or_(ApiKey.daily_limit_nano_usd.is_not(None), ApiKey.monthly_limit_nano_usd.is_not(None)))
    owners: list[Workspace | ApiKey] = [workspace, *db.session.scalars(limited.order_by(ApiKey.name))]
    try:
        return [_standing(workspace, owner, limit) for owner in owners for limit in _own_limits(owner, at)]
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def set_limits(
    workspace: Workspace,
    *,
    daily_nano_usd: int | None,
    monthly_nano_usd: int | None,
    allow_unknown_price: bool,
    actor: Actor,
) -> None:
    """Set the workspace's own limits; None lifts one. Those of a key are among its restrictions (``keys.change``)."""
    with transaction() as session:
        one_at_a_time(lock_name(workspace.id))
        session.refresh(workspace, with_for_update={"key_share": True})
        workspace.daily_limit_nano_usd = daily_nano_usd
        workspace.monthly_limit_nano_usd = monthly_nano_usd
        workspace.allow_unknown_price = allow_unknown_price
        session.flush()
        count_anew(workspace.id, workspace.id)
        details = {
            "daily_limit_usd": None if daily_nano_usd is None else as_usd(daily_nano_usd),
            "monthly_limit_usd": None if monthly_nano_usd is None else as_usd(monthly_nano_usd),
            "allow_unknown_price": allow_unknown_price,
        }
        audit.record(workspace.id, actor, "spending:limit", object_id=workspace.id, details=details)


def count_anew(workspace_id: str, owner_id: str) -> None:
    """Drop an owner's counters in the act that changes its limits, so that the next call counts from the usage rows.

    While it had no limit nobody kept them.
    """
    with transaction() as session:
        one_at_a_time(lock_name(workspace_id))
        session.execute(delete(SpendingCounter).where(SpendingCounter.owner_id == owner_id))


def release_abandoned() -> None:
    """Release what calls of this process hold that are over but could not be settled. For every process.

    Raises DatabaseAway.
    """
    for request_id, workspace_id in list(_abandoned.items()):
        _release_alone(request_id, workspace_id)
        _abandoned.pop(request_id, None)


def clear_up() -> None:
    """Release what the calls of dead processes hold, and forget counters of periods long over. Raises DatabaseAway."""
    try:
        for request_id, workspace_id in parts().quick.all(_DEAD_HOLDS, server_processes.moments()):
            _release_alone(request_id, workspace_id)
        parts().quick.run(_FORGET, {"before": now() - _KEPT_FOR, **_periods(now())})
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def recount() -> None:
    """Count young counters again from the usage rows: a call that began without a limit holds nothing, and none of its
    cost is in a counter that was made before it ended. Raises DatabaseAway."""
    try:
        for owner_id, period, workspace_id in parts().quick.all(_YOUNG, {"since": now() - _RECOUNTED_FOR}):
            limit = _limit_of_counter(owner_id, period, workspace_id)
            with parts().quick.act() as act:
                act.alone(lock_name(workspace_id))
                spent = _spent(act, workspace_id, limit)
                act.run(_RECOUNT, {"spent": spent, "of_owner": owner_id, "in_period": period})
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def abandon(request_id: str, workspace_id: str) -> None:
    """Note that a call is over and its hold could not be released; ``clear_up`` of this process does it later."""
    _abandoned[request_id] = workspace_id


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


def _own_limits(owner: Workspace | ApiKey, at: datetime) -> list[Limit]:
    whose = "workspace" if isinstance(owner, Workspace) else "key"
    amounts = {"day": owner.daily_limit_nano_usd, "month": owner.monthly_limit_nano_usd}
    return [
        Limit(whose, owner.id, period, period_start(period, at), nano_usd)
        for period, nano_usd in amounts.items()
        if nano_usd is not None
    ]


def _standing(workspace: Workspace, owner: Workspace | ApiKey, limit: Limit) -> Standing:
    quick = parts().quick
    found = quick.one(_COUNTER, {"of_owner": limit.owner_id, "in_period": limit.counter})
    spent, held = found or (_spent(quick, workspace.id, limit), _held(quick, workspace.id, limit))
    return Standing(owner.name, owner.id, limit.period, limit.nano_usd, spent, held, limit.resets_at)


def _limit_of_counter(owner_id: str, period: str, workspace_id: str) -> Limit:
    """The owner and period of a counter in the form that sums are made by; its amount does not matter."""
    whose = "workspace" if owner_id == workspace_id else "key"
    name, form = ("day", "%Y-%m-%d") if len(period) == len("2026-11-21") else ("month", "%Y-%m")
    return Limit(whose, owner_id, name, datetime.strptime(period, form).replace(tzinfo=UTC), 0)


def _release_alone(request_id: str, workspace_id: str) -> None:
    try:
        with parts().quick.act() as act:
            act.alone(lock_name(workspace_id))
            release(act, request_id)
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def _most(
    call: Call, routes: Sequence[tuple[str, str]], limits: Sequence[Limit], input_tokens: int, output_tokens: int
) -> int:
    """What the dearest route may cost; a model of unknown price, where the limits' owners allow it, counts as free."""
    found = [
        prices.most_nano_usd(provider, model, input_tokens, output_tokens, call.started_at)
        for provider, model in routes
    ]
    allowed = {"key": call.key.allow_unknown_price, "workspace": call.key.workspace_allow_unknown_price}
    forbidding = [limit.whose for limit in limits if not allowed[limit.whose]]
    if None in found and forbidding:
        model = routes[found.index(None)][1]
        raise UnknownPrice(
            f"The price of the model '{model}' is unknown, and this {forbidding[0]} has a spending limit. An owner or "
            "admin of the workspace can allow models of unknown price under the limit.",
            param="model",
            details={"model": model, "whose": forbidding[0]},
        )
    return max((amount for amount in found if amount is not None), default=0)


def _refusal(tightest: Counted, amount: int | None) -> SpendingLimitReached:
    details = tightest.details()
    words = sentence(details)
    if amount is not None:
        details["call_usd"] = as_usd(amount)
        words += f" This call may cost up to ${as_usd(amount)}."
    if tightest.spent + (amount or 1) <= tightest.limit.nano_usd:
        words += " Only calls in progress stand in the way: try again when they have ended."
        details["in_progress"] = True
    return SpendingLimitReached(words, details=details)


SENTENCE = (
    "Spending limit reached: of the ${limit_usd} a {period} of this {whose}, ${spent_usd} is spent and ${held_usd} is "
    "held for calls in progress. It starts anew at {resets_at}."
)


def sentence(details: dict[str, Any]) -> str:
    """Return what a refusal says, from what it tells."""
    return SENTENCE.format(**details)


def _counted(act: Act, workspace_id: str, limit: Limit) -> Counted:
    """Read a counter; make it from the usage rows and the open holds when there is none."""
    place = {"of_owner": limit.owner_id, "in_period": limit.counter}
    found = act.one(_COUNTER, place)
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


def _keep(act: Act, call: Call, limits: Sequence[Limit], amount: int) -> None:
    for limit in limits:
        act.run(_HOLD, {"amount": amount, "of_owner": limit.owner_id, "in_period": limit.counter})
    values = {
        "request_id": call.request_id,
        "workspace_id": call.key.workspace_id,
        "process_id": server_processes.own_id(),
        "counters": [f"{limit.owner_id}/{limit.counter}" for limit in limits],
        "nano_usd": amount,
        "created_at": now(),
    }
    act.run(_ADD_HOLD, values)


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
