"""What calls tell that people should know: a key used from a new address, a rate limit reached, a spending limit.

Each row of usage is looked at once, a few thousand at a time, from where the last look ended; so it costs the same
however many rows there are. Nothing of it happens while a call is answered.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select

from extensions import db
from models import ApiKey, Job, KeyAddress, UsageRecord, Workspace
from models.base import now, one_at_a_time, transaction
from services import audit, events, notices, spending_notices
from services.actor import Actor
from services.gate import REASONS
from services.members import managers_of
from services.parts import parts
from services.usage import COUNTED

NAME = "watch usage"
ADDRESS, RATE = "key_new_address", "rate_limit_reached"
# What is told of a key's addresses on one day; then one more mail says that there are more.
MOST_MAILS = 3
# A key that is used from so many places is used from anywhere.
MOST_ADDRESSES = 1000
_AT_ONCE = 5000
# Rows get their numbers before they can be seen, so the last ones are looked at again.
_SEEN_TWICE = 1000
_REFUSALS = list(REASONS)


@dataclass(frozen=True, slots=True)
class _Use:
    """Calls of one key from one address."""

    address: str
    first_at: datetime
    client: str | None


def look() -> bool:
    """Look at the next rows; tell whether there are more at once. The first look ever begins at the present end."""
    newest = db.session.scalar(select(func.max(UsageRecord.id))) or 0
    mark = db.session.scalar(select(Job.seen_id).where(Job.name == NAME))
    if mark is None or mark > newest:
        _keep_mark(newest)
        return False
    if mark == newest:
        return False
    end = min(newest, mark + _AT_ONCE)
    _look_at(mark - _SEEN_TWICE, end)
    _keep_mark(end)
    return end < newest


def _keep_mark(seen_id: int) -> None:
    with transaction() as session:
        one_at_a_time(f"job:{NAME}")
        job = session.get(Job, NAME) or Job(name=NAME)
        job.seen_id = seen_id
        session.add(job)


def _look_at(after: int, end: int) -> None:
    some = (UsageRecord.id > after, UsageRecord.id <= end, UsageRecord.api_key_id.is_not(None))
    refused = db.session.execute(
        select(UsageRecord.code, UsageRecord.workspace_id, UsageRecord.api_key_id)
        .where(*some, UsageRecord.code.in_(["rate_limit_exceeded", "spending_limit_reached"]))
        .distinct()
    ).all()
    let_in = or_(UsageRecord.code.is_(None), UsageRecord.code.not_in(_REFUSALS))
    first_at, client = func.min(UsageRecord.started_at), func.max(UsageRecord.client)
    used = db.session.execute(
        select(UsageRecord.api_key_id, UsageRecord.address, first_at, client)
        .where(*some, let_in)
        .group_by(UsageRecord.api_key_id, UsageRecord.address)
    ).all()
    for workspace_id in sorted({row.workspace_id for row in refused if row.code == "rate_limit_exceeded"}):
        _tell_of_rate(workspace_id)
    for row in refused:
        if row.code == "spending_limit_reached":
            spending_notices.look_after_refusal(row.workspace_id, row.api_key_id)
    uses: dict[str, list[_Use]] = defaultdict(list)
    for key_id, address, began, name in used:
        if key_id is not None and address:
            uses[key_id].append(_Use(folded(address), began, name))
    for key_id, found in uses.items():
        _note_addresses(key_id, found)


# ---- The rate limit


def _tell_of_rate(workspace_id: str) -> None:
    day = now().replace(hour=0, minute=0, second=0, microsecond=0)
    occasion = f"{day:%Y-%m-%d}"
    if (workspace_id, occasion) in notices.told(workspace_id, RATE, [workspace_id]):
        return
    refused = db.session.execute(
        select(UsageRecord.api_key_id, func.count().label("calls"))
        .where(
            UsageRecord.workspace_id == workspace_id,
            UsageRecord.started_at >= day,
            COUNTED,
            UsageRecord.code == "rate_limit_exceeded",
        )
        .group_by(UsageRecord.api_key_id)
        .order_by(func.count().desc())
    ).all()
    # Rows of the day before may be looked at after midnight.
    if not refused:
        return
    with transaction() as session:
        workspace = session.get(Workspace, workspace_id)
        if workspace is None or not notices.first_time(workspace_id, RATE, workspace_id, occasion):
            return
        limit, total = parts().plans.requests_per_minute(workspace), sum(row.calls for row in refused)
        key = session.get(ApiKey, refused[0].api_key_id)
        busiest = {"id": key.id, "name": key.name, "masked": key.mask} if key else None
        data = {"day": occasion, "refused_calls": total, "requests_per_minute": limit, "busiest_key": busiest}
        events.add(workspace_id, "rate_limit.reached", data)
        notices.send(
            workspace,
            managers_of(workspace),
            f"{workspace.name} reached its rate limit",
            RATE,
            refused=total,
            limit=limit,
            key_id=key.id if key else None,
            key_name=key.name if key else None,
        )


# ---- New addresses


def folded(address: str) -> str:
    """Return the address, or the network of a household or server that an IPv6 address is in."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


def _note_addresses(key_id: str, uses: Sequence[_Use]) -> None:
    known = _known(key_id)
    new = [use for use in uses if use.address not in known]
    if not new or len(known) >= MOST_ADDRESSES:
        return
    with transaction() as session:
        one_at_a_time(f"key_address:{key_id}")
        key = session.get(ApiKey, key_id)
        workspace = session.get(Workspace, key.workspace_id) if key else None
        # A publishable key is used from everywhere; that is what it is for.
        if key is None or workspace is None or key.kind != "secret":
            return
        known = _known(key_id)
        silent = _silent(key, known, new)
        for use in sorted(new, key=lambda one: one.first_at)[: MOST_ADDRESSES - len(known)]:
            if use.address in known:
                continue
            known.add(use.address)
            session.add(KeyAddress(api_key_id=key.id, address=use.address, first_seen_at=use.first_at))
            if use.address not in silent:
                _tell_of_address(workspace, key, use)


def _known(key_id: str) -> set[str]:
    return set(db.session.scalars(select(KeyAddress.address).where(KeyAddress.api_key_id == key_id)))


def _silent(key: ApiKey, known: set[str], new: Sequence[_Use]) -> set[str]:
    """Return addresses that are no news: the first that a key is ever used from, or all while none was kept yet."""
    if known:
        return set()
    first = min(new, key=lambda use: use.first_at)
    before = (
        select(UsageRecord.id).where(UsageRecord.api_key_id == key.id, UsageRecord.started_at < first.first_at).limit(1)
    )
    if db.session.scalar(before) is not None:
        return {use.address for use in new}
    return {first.address}


def _tell_of_address(workspace: Workspace, key: ApiKey, use: _Use) -> None:
    client = use.client and use.client[:200]
    caller = Actor(kind="api_key", id=key.id, name=key.name, address=use.address.partition("/")[0], client=client)
    details = {"address": use.address}
    audit.record(workspace.id, caller, "key:new_address", object_id=key.id, object_name=key.name, details=details)
    day = f"{now():%Y-%m-%d}"
    today = sum(occasion.startswith(day) for _, occasion in notices.told(workspace.id, ADDRESS, [key.id]))
    if today > MOST_MAILS or key.deleted_at is not None:
        return
    notices.first_time(workspace.id, ADDRESS, key.id, f"{day}/{today + 1}")
    more = today == MOST_MAILS
    subject = f"Your API key “{key.name}” was used from " + ("more new addresses" if more else "a new address")
    notices.send(
        workspace,
        notices.people_of(workspace, key),
        subject,
        ADDRESS,
        key_id=key.id,
        key_name=key.name,
        mask=key.mask,
        address=use.address,
        client=client,
        at=use.first_at,
        more=more,
        most=MOST_MAILS,
    )
