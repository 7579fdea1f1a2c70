"""``flask doctor``: is the installation sound?"""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from services import doctor


@click.command("doctor")
@click.option("--providers", is_flag=True, help="Also ask whether the providers can be reached.")
@with_appcontext
def command(providers: bool) -> None:
    """Check the installation and print a line for each finding: ok or FAIL, what was checked, what was found.

    Exit status 1: something failed.
    """
    failed = False
    for title, finding in doctor.examine(outside=providers):
        failed = failed or not finding.good
        click.echo(f"{'ok' if finding.good else 'FAIL':<5} {title}: {finding.words}")
    if failed:
        raise click.exceptions.Exit(1)
