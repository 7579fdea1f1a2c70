"""Leases: which process does a task that is to be done once, over all processes and nodes.

A lease is short and kept up while the work goes on, so that the work of a process that was killed is taken over
within ``LEASE``. A process that was stopped for longer and then goes on finds its lease gone only when it is done:
a task must bear being done by two at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select, update

from extensions import db
from models import Job
from models.base import now, one_at_a_time, transaction
from services.server_processes import CLOCKS_DIFFER, own_id

LEASE = timedelta(seconds=30)

# The tasks at work in this process.
_held: set[str] = set()


def take(name: str, seconds: float) -> bool:
    """Take the lease of a task unless somebody holds it or did it in the last ``seconds``; tell whether it is ours."""
    # A look first: even an UPDATE that finds nothing to change would wait for SQLite's write lock.
    if not _may_be_taken(name, seconds):
        return False
    with transaction() as session:
        one_at_a_time(f"job:{name}")
        if session.get(Job, name) is None:
            session.add(Job(name=name))
            session.flush()
        taken = session.execute(
            update(Job)
            .where(Job.name == name, *_free(now(), seconds))
            .values(holder=own_id(), held_until=now() + LEASE)
            .returning(Job.name)
        ).first()
    if taken is not None:
        _held.add(name)
    return taken is not None


def give_back(name: str, began_at: datetime) -> None:
    """End our lease: the work was done, or tried, at ``began_at``. Nothing happens when somebody has taken it over."""
    _held.discard(name)
    with transaction() as session:
        session.execute(
            update(Job).where(Job.name == name, Job.holder == own_id()).values(held_until=None, last_run_at=began_at)
        )


def keep_up() -> None:
    """Lengthen the leases of what this process is at."""
    if not _held:
        return
    with transaction() as session:
        session.execute(
            update(Job)
            .where(Job.name.in_(list(_held)), Job.holder == own_id(), Job.held_until.is_not(None))
            .values(held_until=now() + LEASE)
        )


def _may_be_taken(name: str, seconds: float) -> bool:
    row = db.session.execute(select(and_(*_free(now(), seconds))).where(Job.name == name)).first()
    return row is None or bool(row[0])


def _free(at: datetime, seconds: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Nobody holds it, and it is due."""
    return (
        or_(Job.held_until.is_(None), Job.held_until <= at, Job.held_until > at + LEASE + CLOCKS_DIFFER),
        or_(
            Job.last_run_at.is_(None),
            Job.last_run_at <= at - timedelta(seconds=seconds),
            Job.last_run_at > at + CLOCKS_DIFFER,
        ),
    )
