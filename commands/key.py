"""``flask key``: make, inspect and end API keys."""

from __future__ import annotations

from datetime import timedelta

import click
from flask.cli import AppGroup

from commands.tools import Dollars, Span, actor, print_once, refusals_told, secret_from_input
from models.base import now, transaction
from services import keys, rotation, workspaces
from services.parts import parts
from services.restrictions import Restrictions

group = AppGroup("key", help="Make, inspect and end API keys.")


@group.command("create")
@click.option("--workspace", "slug", required=True, help="Slug of the workspace the key belongs to.")
@click.option("--name", required=True, help="Where the key will be used.")
@click.option("--publishable", is_flag=True, help="A read-only key for browsers.")
@click.option("--test", is_flag=True, help="A key that is answered by the simulator.")
@click.option("--scope", "scopes", multiple=True, help="Such as chat:write; may be repeated. Default: full access.")
@click.option("--expires-in", type=Span(), help="A span such as 12h or 30d. Default: never.")
@click.option("--daily-limit", type=Dollars(), help="What it may spend in a UTC day, in US dollars. Default: no limit.")
@click.option("--monthly-limit", type=Dollars(), help="What it may spend in a UTC month.")
@refusals_told
def create(
    slug: str,
    name: str,
    publishable: bool,
    test: bool,
    scopes: tuple[str, ...],
    expires_in: timedelta | None,
    daily_limit: int | None,
    monthly_limit: int | None,
) -> None:
    """Print a new key, alone, on standard output. It cannot be shown again."""
    workspace = workspaces.get_by_slug(slug)
    with transaction():
        minted = keys.mint(
            workspace,
            actor=actor(),
            name=name,
            kind="publishable" if publishable else "secret",
            environment="test" if test else "live",
            scopes=scopes or None,
            expires_at=now() + expires_in if expires_in else None,
            restrictions=Restrictions(daily_limit_nano_usd=daily_limit, monthly_limit_nano_usd=monthly_limit),
        )
        print_once(minted.secret)


@group.command("list")
@click.option("--workspace", "slug", help="Only keys of this workspace.")
@refusals_told
def list_keys(slug: str | None) -> None:
    """Print id, workspace, mask, status and name of every key that is not deleted, separated by tabs."""
    for workspace in [workspaces.get_by_slug(slug)] if slug else workspaces.all_workspaces():
        for key in keys.living(workspace):
            click.echo("\t".join([key.id, workspace.slug, key.mask or "", key.status(), key.name]))


@group.command("rotate")
@click.argument("key_id")
@click.option("--overlap", default="24h", help="How long the current secret lives: now, 1h, 24h, 7d or a moment.")
@refusals_told
def rotate(key_id: str, overlap: str) -> None:
    """Give a key a new secret and print it, alone, on standard output."""
    workspace, key = keys.get_anywhere(key_id)
    until = rotation.moment_after(overlap)
    with transaction():
        print_once(rotation.rotate(workspace, key.id, actor=actor(), until=until).secret)


@group.command("finish")
@click.argument("key_id")
@refusals_told
def finish(key_id: str) -> None:
    """End a rotation now: the previous secret is refused from the next request on."""
    workspace, key = keys.get_anywhere(key_id)
    name = rotation.finish(workspace, key.id, actor=actor()).name
    click.echo(f"The rotation of {name} is finished.", err=True)


@group.command("disable")
@click.argument("key_id")
@refusals_told
def disable(key_id: str) -> None:
    """Refuse a key until it is enabled."""
    workspace, key = keys.get_anywhere(key_id)
    click.echo(f"{keys.disable(workspace, key.id, actor=actor()).name} is disabled.", err=True)


@group.command("enable")
@click.argument("key_id")
@refusals_told
def enable(key_id: str) -> None:
    """Let a disabled key in again."""
    workspace, key = keys.get_anywhere(key_id)
    click.echo(f"{keys.enable(workspace, key.id, actor=actor()).name} is enabled.", err=True)


@group.command("inspect")
@refusals_told
def inspect() -> None:
    """Tell offline whether a string is one of this portal's keys, by its form and checksum alone.

    The string is read from standard input. Exit status 0: it is; 1: it is not.
    """
    shown = secret_from_input("Key").reveal().strip()
    parsed = parts().key_format.parse(shown)
    if parsed is None:
        raise click.ClickException(f"This is no key: {parts().key_format.prefix}_... has another form.")
    if not parsed.checksum_holds:
        raise click.ClickException("This looks like a key, but its checksum is wrong: it was never issued.")
    click.echo(f"A {parsed.kind} {parsed.environment} key with the right checksum.")


@group.command("revoke")
@click.argument("key_id")
@refusals_told
def revoke(key_id: str) -> None:
    """Delete a key: the next request with it is refused."""
    workspace, key = keys.get_anywhere(key_id)
    keys.delete(workspace, key_id, actor=actor())
    click.echo(f"{key.name} is deleted.", err=True)
