"""The state of the instance for the operator's System page, beside what doctor finds. Nothing secret is in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from extensions import db
from models import Job, Passkey, ServerProcess, TotpSecret, User
from models.base import now
from services import metrics, server_processes, tasks
from services.parts import parts


@dataclass(frozen=True, slots=True)
class TaskState:
    """How a background task goes. The counts are of this node's processes since its server was started.

    ``last_run_at`` is known for tasks that one process does for all; ``at_work`` tells that one is at it.
    """

    name: str
    seconds: float
    once_per_fleet: bool
    last_run_at: datetime | None
    at_work: bool
    done: int
    failed: int


def task_states() -> list[TaskState]:
    """Return every background task, in the order of the table."""
    jobs = {job.name: job for job in db.session.scalars(select(Job))}
    runs = metrics.totals(metrics.TASK_RUNS)
    at = now()
    found = []
    for task in tasks.TASKS:
        job = jobs.get(task.name)
        found.append(
            TaskState(
                name=task.name,
                seconds=task.seconds,
                once_per_fleet=task.once_per_fleet,
                last_run_at=job.last_run_at if job else None,
                at_work=bool(job and job.held_until and job.held_until > at),
                done=int(runs.get((task.name, "done"), 0)),
                failed=int(runs.get((task.name, "failed"), 0)),
            )
        )
    return found


def living_processes() -> list[ServerProcess]:
    """Return the server processes of all nodes that have said lately that they are alive."""
    query = select(ServerProcess).where(server_processes.is_alive(now()))
    return list(db.session.scalars(query.order_by(ServerProcess.node, ServerProcess.started_at)))


def limits_storage() -> str:
    """Return in words where rate limits are counted."""
    limits = parts().limits
    if limits.in_memory:
        return f"the memory of each process, because {limits.storage_title} does not answer"
    return limits.storage_title


def has_second_factor(user: User) -> bool:
    """Tell whether a password alone does not sign this person in."""
    app = select(TotpSecret.id).where(TotpSecret.user_id == user.id, TotpSecret.confirmed_at.is_not(None))
    passkey = select(Passkey.id).where(Passkey.user_id == user.id)
    return any(db.session.scalars(query.limit(1)).first() is not None for query in (app, passkey))


def sign_up_open() -> bool:
    """Tell whether anybody may make an account."""
    return parts().sign_up_open
