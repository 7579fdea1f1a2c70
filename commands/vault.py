"""``flask vault``: the master keys that stored secrets are sealed with."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import refusals_told
from services import vault_rotation
from services.vault_rotation import Tally

group = AppGroup("vault", help="See and change the master keys that stored secrets are sealed with.")


@group.command("status")
@refusals_told
def status() -> None:
    """Print each master key's public name, role, number of seals and of rows, separated by tabs. Never a key."""
    for key in vault_rotation.standings():
        click.echo("\t".join([key.name, key.role, str(key.seals), str(key.rows)]))


@group.command("rotate")
@click.option("--new-key", is_flag=True, help="First put a new master key into the instance folder's file.")
@refusals_told
def rotate(new_key: bool) -> None:
    """Seal every stored secret anew with the newest master key, while the portal serves.

    May be interrupted and run again. Exit status 1: some cannot be decrypted; they are named.
    """
    if new_key:
        click.echo(f"Master key {vault_rotation.add_key()} seals from now on.", err=True)
    tally = vault_rotation.reseal_all(_told)
    click.echo(
        f"{tally.resealed} resealed, {tally.current} already current, {len(tally.unreadable)} cannot be decrypted.",
        err=True,
    )
    for sentence in tally.unreadable:
        click.echo(f"{sentence}.", err=True)
    if tally.unreadable:
        raise click.exceptions.Exit(1)


@group.command("forget")
@refusals_told
def forget() -> None:
    """Drop the old master keys from the instance folder's file, once nothing needs them.

    A copy of the database from before the rotation then needs a copy of the old file, too.
    """
    click.echo(f"{vault_rotation.forget_old_keys()} old master keys dropped.", err=True)


def _told(tally: Tally) -> None:
    click.echo(f"{tally.seen} of {max(tally.total, tally.seen)} secrets done.", err=True)
