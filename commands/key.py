"""``flask key``: make, inspect and end API keys."""

from __future__ import annotations

from datetime import timedelta

import click
from flask.cli import AppGroup

from commands.tools import Span, actor, refusals_told
from models.base import now
from services import keys, workspaces

group = AppGroup("key", help="Make, inspect and end API keys.")


@group.command("create")
@click.option("--workspace", "slug", required=True, help="Slug of the workspace the key belongs to.")
@click.option("--name", required=True, help="Where the key will be used.")
@click.option("--publishable", is_flag=True, help="A read-only key for browsers.")
@click.option("--test", is_flag=True, help="A key that is answered by the simulator.")
@click.option("--scope", "scopes", multiple=True, help="Such as chat:write; may be repeated. Default: full access.")
@click.option("--expires-in", type=Span(), help="A span such as 12h or 30d. Default: never.")
@refusals_told
def create(
    slug: str, name: str, publishable: bool, test: bool, scopes: tuple[str, ...], expires_in: timedelta | None
) -> None:
    """Print a new key, alone, on standard output. It cannot be shown again."""
    minted = keys.mint(
        workspaces.get_by_slug(slug),
        actor=actor(),
        name=name,
        kind="publishable" if publishable else "secret",
        environment="test" if test else "live",
        scopes=scopes or None,
        expires_at=now() + expires_in if expires_in else None,
    )
    click.echo(minted.secret.reveal())


@group.command("list")
@click.option("--workspace", "slug", help="Only keys of this workspace.")
@refusals_told
def list_keys(slug: str | None) -> None:
    """Print id, workspace, mask, status and name of every key that is not deleted, separated by tabs."""
    for workspace in [workspaces.get_by_slug(slug)] if slug else workspaces.all_workspaces():
        for key in keys.living(workspace):
            click.echo("\t".join([key.id, workspace.slug, key.mask or "", key.status(), key.name]))


@group.command("revoke")
@click.argument("key_id")
@refusals_told
def revoke(key_id: str) -> None:
    """Delete a key: the next request with it is refused."""
    workspace, key = keys.get_anywhere(key_id)
    keys.delete(workspace, key_id, actor=actor())
    click.echo(f"{key.name} is deleted.", err=True)
