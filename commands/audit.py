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


@group.command("seal")
@click.option("--anew", is_flag=True, help="Bind every entry as it stands, also where a chain is broken.")
@refusals_told
def seal(anew: bool) -> None:
    """Bind entries that an older version of the portal has written while this one was running.

    With --anew, after a restore under another signing key, everything that is there is taken for what was written:
    look first that it is. Exits with status 1 when a chain does not hold.
    """
    broken = audit.seal(anew=anew)
    for slug in broken:
        click.echo(f"{slug}: the chain does not hold, `flask audit verify` tells where.", err=True)
    if broken:
        raise click.exceptions.Exit(1)
    click.echo("The audit log is bound.", err=True)
