"""The table of background tasks: name, seconds between two runs, what is done, and whether once for all processes."""

from __future__ import annotations

from services import (
    accounts,
    audit_checks,
    checkpoints,
    events,
    gauges,
    idempotency,
    invitations,
    key_notices,
    mail,
    mailed_links,
    metering,
    notices,
    prices,
    provider_notices,
    provider_upkeep,
    server_processes,
    sessions,
    settling,
    sign_in_attempts,
    spending,
    spending_notices,
    usage_watch,
    webhook_deliveries,
)
from services.background import Task
from services.parts import parts

_MINUTE, _HOUR = 60.0, 3600.0
# Each of them may wait for an endpoint that hangs, so a process has several.
_WEBHOOK_SENDERS = 4

TASKS = (
    Task("sign of life", server_processes.BEAT_SECONDS, server_processes.beat, once_per_fleet=False),
    # So that no caller waits for it.
    Task("read the prices", 24 * _HOUR, prices.load, once_per_fleet=False),
    Task("checkpoint", 1, checkpoints.checkpoint, once_per_fleet=False),
    Task("look at the limiter", 5, lambda: parts().limits.look(), once_per_fleet=False),
    Task("look at the gauges", 2, gauges.sample, once_per_fleet=False),
    Task("settle streams that are over", 2, settling.settle_waiting, once_per_fleet=False),
    Task("release abandoned holds", 5, spending.release_abandoned, once_per_fleet=False),
    Task("complete calls of dead processes", 5, metering.complete_orphans),
    Task("release holds of dead processes", 5, spending.clear_up),
    Task("recount spending", 60, spending.recount),
    Task("verify the audit log", 60, audit_checks.verify_next),
    Task("forget dead processes", _HOUR, server_processes.forget_dead),
    Task("check provider keys again", 60, provider_upkeep.check_again),
    # Each message is claimed by itself, so that the processes can share the work.
    Task("mail", 2, mail.send_next, once_per_fleet=False),
    # Each event and each endpoint is locked by itself.
    Task("queue webhooks", 2, webhook_deliveries.fan_out, once_per_fleet=False),
    *(
        Task(f"webhooks {number}", 2, webhook_deliveries.send_next, once_per_fleet=False)
        for number in range(1, _WEBHOOK_SENDERS + 1)
    ),
    Task("forget webhook events", _HOUR, events.forget_old),
    Task("forget webhook leases", 24 * _HOUR, webhook_deliveries.forget_leases),
    Task("watch usage", _MINUTE, usage_watch.look),
    Task("watch spending", _MINUTE, spending_notices.look),
    Task("watch provider keys", _MINUTE, provider_notices.look),
    Task("watch expiry", 15 * _MINUTE, key_notices.tell_of_expiry),
    Task("watch expired keys", _MINUTE, key_notices.tell_of_expired),
    Task("watch old secrets", _HOUR, key_notices.tell_of_rotation),
    Task("forget notices", 24 * _HOUR, notices.forget_old),
    Task("forget mail", _HOUR, mail.forget_old),
    # Files are kept by each node for itself.
    Task("forget mail files", _HOUR, mail.forget_old_files, once_per_fleet=False),
    Task("forget idempotency records", _HOUR, idempotency.forget_old),
    Task("forget invitations", _HOUR, invitations.forget_old),
    Task("forget ended sessions", _HOUR, sessions.forget_ended),
    Task("forget sign-in attempts", _HOUR, sign_in_attempts.forget_old),
    Task("forget mailed links", _HOUR, mailed_links.forget_old),
    Task("forget unconfirmed accounts", _HOUR, accounts.forget_unconfirmed),
)
