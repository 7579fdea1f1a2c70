"""Notices about spending limits: 80 or 100 % of one is used, told once for each period and amount."""

from __future__ import annotations

from sqlalchemy import select

from extensions import db
from models import ApiKey, SpendingCounter, User, Workspace
from models.base import now, transaction
from services import events, notices, spending_counters
from services.members import managers_of
from services.money import as_usd
from services.spending_counters import PERIODS

KIND = "spending_reached"
NEAR, REACHED = 80, 100
# A call that no longer fits is refused before all is spent: then so much of it counts as reached.
_AS_GOOD_AS_ALL = 95


def look() -> None:
    """Compare the present counters with their limits. There are few: only owners with a limit have any."""
    periods = [spending_counters.counter_period(period, now()) for period in PERIODS]
    counters = db.session.execute(
        select(SpendingCounter.workspace_id, SpendingCounter.owner_id, SpendingCounter.period).where(
            SpendingCounter.period.in_(periods), SpendingCounter.spent_nano_usd > 0
        )
    ).all()
    for workspace_id, owner_id, period in counters:
        _look_at(workspace_id, owner_id, period, refused=False)


def look_after_refusal(workspace_id: str, key_id: str) -> None:
    """Look at the limits of a key and its workspace after a call was refused because of one."""
    for owner_id in (workspace_id, key_id):
        for period in PERIODS:
            _look_at(workspace_id, owner_id, spending_counters.counter_period(period, now()), refused=True)


def _look_at(workspace_id: str, owner_id: str, period: str, *, refused: bool) -> None:
    owner, limit = _limit_of(workspace_id, owner_id, period)
    spent = db.session.scalar(
        select(SpendingCounter.spent_nano_usd).where(
            SpendingCounter.owner_id == owner_id, SpendingCounter.period == period
        )
    )
    if owner is None or not limit or spent is None:
        return
    percent = _percent(spent, limit, refused=refused)
    occasion = f"{period}/{percent}/{limit}"
    if percent is None or (owner_id, occasion) in notices.told(workspace_id, KIND, [owner_id]):
        return
    with transaction():
        workspace = db.session.get(Workspace, workspace_id)
        if workspace is None or not notices.first_time(workspace_id, KIND, owner_id, occasion):
            return
        if percent == REACHED:
            # What is below it is no news any more.
            notices.first_time(workspace_id, KIND, owner_id, f"{period}/{NEAR}/{limit}")
        _tell(workspace, db.session.get(ApiKey, owner_id), period, percent, spent, limit)


def _percent(spent: int, limit: int, *, refused: bool) -> int | None:
    if spent >= limit or (refused and spent * 100 >= limit * _AS_GOOD_AS_ALL):
        return REACHED
    return NEAR if spent * 100 >= limit * NEAR else None


def _limit_of(workspace_id: str, owner_id: str, period: str) -> tuple[Workspace | ApiKey | None, int | None]:
    owner: Workspace | ApiKey | None
    if owner_id == workspace_id:
        owner = db.session.get(Workspace, workspace_id)
    else:
        owner = db.session.get(ApiKey, owner_id)
        if owner is not None and owner.deleted_at is not None:
            owner = None
    if owner is None:
        return None, None
    daily = len(period) == len("2026-11-21")
    return owner, owner.daily_limit_nano_usd if daily else owner.monthly_limit_nano_usd


def _tell(workspace: Workspace, key: ApiKey | None, period: str, percent: int, spent: int, limit: int) -> None:
    name = "day" if len(period) == len("2026-11-21") else "month"
    resets_at = spending_counters.period_end(name, now())
    data = {
        "whose": "key" if key else "workspace",
        "key": {"id": key.id, "name": key.name, "masked": key.mask} if key else None,
        "period": period,
        "percent": percent,
        "limit_usd": as_usd(limit),
        "spent_usd": as_usd(spent),
        "resets_at": f"{resets_at:%Y-%m-%dT%H:%M:%SZ}",
    }
    events.add(workspace.id, "spending.threshold_reached", data)
    whose = f"“{key.name}”" if key else workspace.name
    subject = f"Spending limit of {whose} reached" if percent == REACHED else f"{whose} has used 80 % of its limit"
    people = [*managers_of(workspace), *_maker(workspace, key)]
    notices.send(
        workspace,
        people,
        subject,
        KIND,
        key_id=key.id if key else None,
        key_name=key.name if key else None,
        reached=percent == REACHED,
        period="today" if name == "day" else "this month",
        spent_nano_usd=spent,
        limit_nano_usd=limit,
        resets_at=resets_at,
    )


def _maker(workspace: Workspace, key: ApiKey | None) -> list[User]:
    maker = notices.maker_of(workspace, key) if key else None
    return [maker] if maker else []
