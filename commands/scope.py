"""``flask scope``: scopes of a workspace's own."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told
from services import custom_scopes, workspaces

group = AppGroup("scope", help="Define scopes that guard a workspace's own services.")


@group.command("define")
@click.option("--workspace", "slug", required=True, help="Slug of the workspace.")
@click.argument("name")
@click.argument("meaning")
@refusals_told
def define(slug: str, name: str, meaning: str) -> None:
    """Add a scope such as emails:send, with a sentence that says what it allows."""
    scope = custom_scopes.define(workspaces.get_by_slug(slug), name, meaning, actor=actor())
    click.echo(f"{scope.name} is defined.", err=True)


@group.command("list")
@click.option("--workspace", "slug", required=True, help="Slug of the workspace.")
@refusals_told
def list_scopes(slug: str) -> None:
    """Print name and meaning of each, separated by a tab."""
    for scope in custom_scopes.of_workspace(workspaces.get_by_slug(slug)):
        click.echo(f"{scope.name}\t{scope.meaning}")
