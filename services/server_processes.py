"""Which server process this is, so that what a dead one had begun can be told from what is still being worked on."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import BindParameter, ColumnElement, bindparam, delete, exists, insert, or_, update

from models import ServerProcess
from models.base import new_id, now
from models.quick import DatabaseUnavailable, Prepared
from services.errors import DatabaseAway
from services.parts import parts

BEAT_SECONDS = 3
# Beats may be missed. To call a living process dead does no harm: what it settles afterwards still counts, once.
ALIVE_FOR = timedelta(seconds=15)
# Clocks of nodes may differ by this much. A moment further ahead was written before a clock was set back.
CLOCKS_DIFFER = timedelta(minutes=1)
# A process may take its first call before its first beat.
UNKNOWN_FOR = timedelta(seconds=60)
_KEPT_FOR = timedelta(days=1)
_NODE_LENGTH = 200

_log = structlog.get_logger("processes")
_own: dict[int, str] = {}


def own_id() -> str:
    """Return the id of this process; a fork has one of its own."""
    pid = os.getpid()
    if pid not in _own:
        _own.clear()
        _own[pid] = new_id("proc")
    return _own[pid]


def beat() -> None:
    """Say that this process is alive. To be called every few seconds, also while the database is away: then it says
    nothing."""
    at = now()
    try:
        with parts().quick.act() as act:
            if not act.run(_BEAT, {"own_id": own_id(), "alive_until": at + ALIVE_FOR}):
                values = {"id": own_id(), "node": socket.gethostname()[:_NODE_LENGTH], "started_at": at}
                act.run(_REGISTER, {**values, "alive_until": at + ALIVE_FOR})
    except DatabaseUnavailable:
        # No failure of the task, after which it would pause for longer than a process without a sign is alive.
        _log.warning("no sign of life: the database is away")


def leave() -> None:
    """Say that this process has ended properly, so that nobody takes it for one at work until its last sign is old."""
    try:
        parts().quick.run(_BEAT, {"own_id": own_id(), "alive_until": now()})
    except DatabaseUnavailable:
        _log.warning("no word of the end: the database is away")


def forget_dead() -> None:
    """Remove processes that died long ago. Raises DatabaseAway."""
    try:
        parts().quick.run(_FORGET, {"before": now() - _KEPT_FOR})
    except DatabaseUnavailable as error:
        raise DatabaseAway from error


def is_alive(at: datetime) -> ColumnElement[bool]:
    """Return the condition that a process has said by then that it is alive, and not before its clock was set back."""
    return ServerProcess.alive_until.between(at, at + ALIVE_FOR + CLOCKS_DIFFER)


def is_dead(process_id: Any, since: Any) -> ColumnElement[bool]:
    """Return the condition that the process in a column has died; ``since`` is the column that tells since when it was
    at work. Its parameters are ``moments()``."""

    def moment(name: str) -> BindParameter[datetime]:
        return bindparam(name, type_=ServerProcess.alive_until.type)

    known = exists().where(ServerProcess.id == process_id)
    return or_(
        known.where(~ServerProcess.alive_until.between(moment("now"), moment("too_late"))),
        ~known & ~since.between(moment("long_ago"), moment("too_late")),
    )


def moments(at: datetime | None = None) -> dict[str, datetime]:
    """Return the parameters of ``is_dead``."""
    at = at or now()
    return {"now": at, "long_ago": at - UNKNOWN_FOR, "too_late": at + ALIVE_FOR + CLOCKS_DIFFER}


_BEAT = Prepared(
    update(ServerProcess)
    .where(ServerProcess.id == bindparam("own_id"))
    .values(alive_until=bindparam("alive_until", type_=ServerProcess.alive_until.type))
)
_REGISTER = Prepared(
    insert(ServerProcess).values(
        {column.name: bindparam(column.name, type_=column.type) for column in ServerProcess.__table__.columns}
    )
)
_FORGET = Prepared(
    delete(ServerProcess).where(
        ServerProcess.alive_until < bindparam("before", type_=ServerProcess.alive_until.type),
    )
)
