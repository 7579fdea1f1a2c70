"""Asking providers again about keys in a bad state, so that they heal without a call."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select

from extensions import db
from models import ProviderKey
from models.base import now
from services import provider_keys
from services.parts import parts
from services.provider_keys import (
    CANNOT_DECRYPT,
    INVALID,
    NO_CREDIT,
    RATE_LIMITED,
    RESTRICTED,
    UNREACHABLE,
    UNVERIFIED,
)

# How long a key in such a state is left alone after it was last seen or checked: what passes by itself is looked at
# soon, what a person has to put right seldom.
AGAIN_AFTER = {
    UNREACHABLE: timedelta(minutes=2),
    UNVERIFIED: timedelta(minutes=2),
    RATE_LIMITED: timedelta(minutes=2),
    CANNOT_DECRYPT: timedelta(minutes=15),
    NO_CREDIT: timedelta(minutes=15),
    RESTRICTED: timedelta(hours=6),
    INVALID: timedelta(hours=6),
}
# A check takes ten seconds at most, and others wait for the same thread.
_AT_ONCE = 3


def check_again() -> bool:
    """Check a few keys whose turn it is, the longest waiting first; return whether there may be more.

    A provider that cannot be reached now says nothing new about a key that it refused before.
    """
    due = _due()
    for row_id, workspace_id, provider_name, record, state in due:
        provider = parts().providers[provider_name]
        place = provider_keys.place_of(workspace_id, provider_name, row_id)
        finding = provider_keys.find_out(provider, record, place)
        unclear = finding.state == UNREACHABLE and state not in (UNREACHABLE, UNVERIFIED)
        provider_keys.keep_finding(row_id, record, None if unclear else finding)
    return len(due) == _AT_ONCE


def _due() -> list[tuple[str, str, str, str, str]]:
    at = now()
    last_looked_at = func.coalesce(ProviderKey.checked_at, ProviderKey.updated_at)
    query = (
        select(ProviderKey.id, ProviderKey.workspace_id, ProviderKey.provider, ProviderKey.sealed, ProviderKey.state)
        .where(
            ProviderKey.provider.in_(parts().providers),
            or_(*(_waited(state, at - pause) for state, pause in AGAIN_AFTER.items())),
        )
        .order_by(last_looked_at)
        .limit(_AT_ONCE)
    )
    return [(*row,) for row in db.session.execute(query)]


def _waited(state: str, since: datetime) -> ColumnElement[bool]:
    """A key in this state, neither seen in it nor checked nor saved since then."""
    moments = (ProviderKey.state_seen_at, ProviderKey.checked_at, ProviderKey.updated_at)
    return and_(ProviderKey.state == state, *(or_(moment.is_(None), moment < since) for moment in moments))
