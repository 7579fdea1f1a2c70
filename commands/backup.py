"""``flask backup`` and ``flask restore``: everything the portal keeps, in one file."""

from __future__ import annotations

from pathlib import Path

import click
from flask.cli import with_appcontext

from commands.tools import refusals_told, tidy_end
from services import backup as backups


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_appcontext
@refusals_told
@tidy_end()
def backup(file: Path) -> None:
    """Write all that the portal keeps into FILE, also while it serves. Keys are not in it."""
    if str(file) == "-":
        raise click.ClickException("A backup is not written to standard output. Name a file.")
    try:
        manifest = backups.make(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}.") from error
    click.echo(
        f"{file}: {manifest.rows} rows of {len(manifest.tables)} tables.\n"
        "It does not hold the portal's keys. Keep secret_key and master_key of the instance folder, or what "
        "ARKA_SECRET_KEY and ARKA_MASTER_KEY are set to, in another place: without the first no API key in the "
        "backup works, without the second no provider key, authenticator app or webhook secret opens.",
        err=True,
    )


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", is_flag=True, help="Replace the data that is there.")
@click.option("--with-other-keys", is_flag=True, help="Also if API keys will not work, and sealed secrets not open.")
@with_appcontext
@refusals_told
@tidy_end()
def restore(file: Path, yes: bool, with_other_keys: bool) -> None:
    """Put what a backup holds in the place of all there is, after checking it as a whole. The portal must not serve."""
    try:
        manifest = backups.restore(file, replace=yes, with_other_keys=with_other_keys)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be restored: {error.strerror}. Nothing was changed.") from error
    click.echo(
        f"{manifest.rows} rows are back as they were at {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC. Whoever was "
        "signed in has to sign in again; keys that were deleted or rotated since then are as they were before.",
        err=True,
    )
