"""The table of background tasks: name, seconds between two runs, what is done, and whether once for all processes."""

from __future__ import annotations

from services import (
    gauges,
    idempotency,
    invitations,
    mail,
    metering,
    prices,
    provider_upkeep,
    server_processes,
    sessions,
    spending,
)
from services.background import Task

_HOUR = 3600.0

TASKS = (
    Task("sign of life", server_processes.BEAT_SECONDS, server_processes.beat, once_per_fleet=False),
    # So that no caller waits for it.
    Task("read the prices", 24 * _HOUR, prices.load, once_per_fleet=False),
    Task("look at the gauges", 15, gauges.sample, once_per_fleet=False),
    Task("release abandoned holds", 5, spending.release_abandoned, once_per_fleet=False),
    Task("complete calls of dead processes", 5, metering.complete_orphans),
    Task("release holds of dead processes", 5, spending.clear_up),
    Task("recount spending", 60, spending.recount),
    Task("forget dead processes", _HOUR, server_processes.forget_dead),
    Task("check provider keys again", 60, provider_upkeep.check_again),
    # Each message is claimed by itself, so that the processes can share the work.
    Task("mail", 2, mail.send_next, once_per_fleet=False),
    Task("forget mail", _HOUR, mail.forget_old),
    # Files are kept by each node for itself.
    Task("forget mail files", _HOUR, mail.forget_old_files, once_per_fleet=False),
    Task("forget idempotency records", _HOUR, idempotency.forget_old),
    Task("forget invitations", _HOUR, invitations.forget_old),
    Task("forget ended sessions", _HOUR, sessions.forget_ended),
)
