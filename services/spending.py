"""Spending limits: daily and monthly, of a key and of its workspace, held before a call and settled after it.

Before a call goes to a provider the most it may cost is held; the act that keeps its usage row gives the hold back and
counts the real cost. Where neither the key nor its workspace has a limit, nothing is asked and nothing written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, or_, select

from extensions import db
from models import ApiKey, SpendingCounter, Workspace
from models.base import now, one_at_a_time, transaction
from models.quick import Act, DatabaseUnavailable, Quick
from services import audit, prices, spending_counters
from services.actor import Actor
from services.errors import DatabaseAway, SpendingLimitReached, UnknownPrice
from services.money import as_usd
from services.parts import parts
from services.spending_counters import Counted, Limit, lock_name, period_start

if TYPE_CHECKING:
    from services.gate import KeyFacts
    from services.metering import Call

# Held for a caller who does not say how long the answer may be.
USUAL_OUTPUT_TOKENS = 4096

# Calls of this process whose hold nobody else is going to release while the process lives, with their workspaces.
_abandoned: dict[str, str] = {}


def limits_of(key: KeyFacts, at: datetime) -> list[Limit]:
    """Return the limits that hold for a call of this key that begins then; a test key spends nothing and has none."""
    if key.environment == "test":
        return []
    if (
        key.daily_limit_nano_usd is None
        and key.monthly_limit_nano_usd is None
        and key.workspace_daily_limit_nano_usd is None
        and key.workspace_monthly_limit_nano_usd is None
    ):
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
    rows = spending_counters.known(quick, key.key_id, key.workspace_id, at)
    if all((limit.owner_id, limit.counter) in rows for limit in limits):
        counted = [Counted(limit, *rows[limit.owner_id, limit.counter]) for limit in limits]
    else:
        with quick.act() as act:
            act.alone(lock_name(key.workspace_id))
            counted = [spending_counters.count(act, key.workspace_id, limit) for limit in limits]
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
    tools = parts()
    try:
        with tools.turns, tools.quick.act() as act:
            act.alone(lock_name(call.key.workspace_id))
            tightest = min(
                (spending_counters.count(act, call.key.workspace_id, limit) for limit in limits),
                key=lambda one: one.left,
            )
            amount = most if bounded else min(most, tightest.left)
            fits = tightest.left > 0 and amount <= tightest.left
            if fits:
                spending_counters.keep(act, call.request_id, call.key.workspace_id, limits, amount)
    except DatabaseUnavailable as error:
        # It may have been kept although nobody told so.
        abandon(call.request_id, call.key.workspace_id)
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
    spending_counters.release(act, request_id)
    if cost_change:
        spending_counters.spend(act, workspace_id, key_id, started_at, cost_change)


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
        for request_id, workspace_id in spending_counters.of_dead_processes(parts().quick):
            _release_alone(request_id, workspace_id)
        spending_counters.forget_old(parts().quick)
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def recount() -> None:
    """Count young counters again from the usage rows: a call that began without a limit holds nothing, and none of its
    cost is in a counter that was made before it ended. Raises DatabaseAway."""
    try:
        spending_counters.recount(parts().quick)
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def abandon(request_id: str, workspace_id: str) -> None:
    """Note that a call is over and its hold could not be released; ``clear_up`` of this process does it later."""
    _abandoned[request_id] = workspace_id


def _own_limits(owner: Workspace | ApiKey, at: datetime) -> list[Limit]:
    whose = "workspace" if isinstance(owner, Workspace) else "key"
    amounts = {"day": owner.daily_limit_nano_usd, "month": owner.monthly_limit_nano_usd}
    return [
        Limit(whose, owner.id, period, period_start(period, at), nano_usd)
        for period, nano_usd in amounts.items()
        if nano_usd is not None
    ]


def _standing(workspace: Workspace, owner: Workspace | ApiKey, limit: Limit) -> Standing:
    found = spending_counters.look(parts().quick, workspace.id, limit)
    return Standing(owner.name, owner.id, limit.period, limit.nano_usd, found.spent, found.held, limit.resets_at)


def _release_alone(request_id: str, workspace_id: str) -> None:
    try:
        with parts().quick.act() as act:
            act.alone(lock_name(workspace_id))
            spending_counters.release(act, request_id)
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
