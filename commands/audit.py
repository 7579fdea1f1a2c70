"""``flask audit``: is the audit log as it was written?"""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import refusals_told
from services import audit

group = AppGroup("audit", help="Check the audit log.")


@group.command("verify")
@refusals_told
def verify() -> None:
    """Check every workspace's chain; name the first broken entry of each and exit with status 1 if there is one."""
    breaks = list(audit.first_breaks())
    for broken in breaks:
        click.echo(f"{broken.workspace}: entry {broken.number} is missing or was changed.", err=True)
    if breaks:
        raise click.exceptions.Exit(1)
    click.echo("The audit log is as it was written.", err=True)
