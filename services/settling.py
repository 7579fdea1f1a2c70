"""The ends of streams: what a call came to is written into its row, and what is held for it is settled.

A database that is away at that moment must not lose it, as the caller may be gone by then: the end is kept in the
memory of the process and written as soon as the database is back. A process that dies before then has its rows
completed by others (``metering.complete_orphans``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import bindparam, or_, select, update

from models import UsageRecord
from models.quick import Act, DatabaseUnavailable, Prepared
from services import metrics, spending
from services.errors import DatabaseAway
from services.parts import Parts, parts
from services.spending_counters import lock_name

if TYPE_CHECKING:
    from services.metering import Call

# More streams than any process has open at once.
MOST_WAITING = 10_000

_log = structlog.get_logger("settling")
_waiting: dict[str, tuple[Call, dict[str, Any]]] = {}


def settle(tools: Parts, call: Call, values: dict[str, Any]) -> None:
    """Complete the row of a streamed call with ``values``, and settle what is held for it.

    Raises DatabaseAway when that is not possible now; it is then done later by ``settle_waiting``, unless a further try
    comes first.
    """
    try:
        with tools.turns:
            if call.hold is None:
                tools.quick.run(_SETTLE, {**values, "of_request": call.request_id})
            else:
                with tools.quick.act() as act:
                    _settle(act, _SETTLE, call, values)
    except (DatabaseUnavailable, DatabaseAway) as error:
        _keep(call, values)
        raise DatabaseAway from error
    except BaseException:
        # Whatever kept it from being settled, the hold must not outlive the call.
        if call.hold is not None:
            spending.abandon(call.request_id, call.key.workspace_id)
        raise
    if _waiting.pop(call.request_id, None):
        metrics.UNSETTLED.set(len(_waiting))


def settle_waiting() -> None:
    """Write the ends that wait for the database, the oldest first. For every process.

    Raises nothing when it is still away: a task that fails pauses for longer than is good here.
    """
    quick = parts().quick
    for request_id, (call, values) in list(_waiting.items()):
        try:
            with quick.act() as act:
                _settle(act, _SETTLE_LATE, call, values)
        except DatabaseUnavailable:
            _log.warning("ends of streams wait for the database", waiting=len(_waiting))
            return
        _waiting.pop(request_id, None)
        metrics.UNSETTLED.set(len(_waiting))
        _log.info("the end of a stream was written late", request_id=request_id)


def _settle(act: Act, statement: Prepared, call: Call, values: dict[str, Any]) -> None:
    act.alone(lock_name(call.key.workspace_id))
    # A cost is there already if the call was taken for one of a dead process.
    found = act.one(_COST, {"of_request": call.request_id})
    written = act.run(statement, {**values, "of_request": call.request_id})
    if call.hold is not None:
        cost = (values["cost_nano_usd"] or 0) - ((found and found[0]) or 0) if written else 0
        spending.settle(act, call, cost)


def _keep(call: Call, values: dict[str, Any]) -> None:
    if len(_waiting) >= MOST_WAITING and call.request_id not in _waiting:
        _log.error("the end of a stream is lost: too many wait for the database", request_id=call.request_id)
        if call.hold is not None:
            spending.abandon(call.request_id, call.key.workspace_id)
        return
    # What waits longest stays first.
    _waiting[call.request_id] = (call, values)
    metrics.UNSETTLED.set(len(_waiting))
    _log.warning("the end of a stream waits for the database", request_id=call.request_id)


_columns = UsageRecord.__table__.columns
_SETTLED = (
    "ended_at",
    "duration_ms",
    "code",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "estimated",
    "cost_nano_usd",
    "price_version",
)
_OF_REQUEST = UsageRecord.request_id == bindparam("of_request")
_VALUES: dict[str, Any] = {name: bindparam(name) for name in _SETTLED}
_SETTLE = Prepared(update(UsageRecord).where(_OF_REQUEST).values(_VALUES))
# A further try may have come first, and then it is right; what another process took for dead is not.
_OPEN = or_(UsageRecord.ended_at.is_(None), UsageRecord.code == "portal_stopped")
_SETTLE_LATE = Prepared(update(UsageRecord).where(_OF_REQUEST, _OPEN).values(_VALUES))
_COST = Prepared(select(UsageRecord.cost_nano_usd).where(_OF_REQUEST))
