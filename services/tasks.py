"""The table of background tasks: name, seconds between two runs, what is done, and whether once for all processes."""

from __future__ import annotations

from services import accounts, idempotency, mail
from services.background import Task

_HOUR = 3600.0

TASKS = (
    # Each message is claimed by itself, so that the processes can share the work.
    Task("mail", 2, mail.send_next, once_per_fleet=False),
    Task("forget mail", _HOUR, mail.forget_old),
    # Files are kept by each node for itself.
    Task("forget mail files", _HOUR, mail.forget_old_files, once_per_fleet=False),
    Task("forget idempotency records", _HOUR, idempotency.forget_old),
    Task("forget ended sessions", _HOUR, accounts.forget_ended_sessions),
)
