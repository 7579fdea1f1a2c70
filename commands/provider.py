"""``flask provider``: connect a workspace to a provider."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told, secret_from_input
from services import provider_keys, workspaces

group = AppGroup("provider", help="Connect a workspace to a provider.")


@group.command("set")
@click.option("--workspace", "slug", required=True, help="Slug of the workspace.")
@click.argument("name")
@click.option("--unverified", is_flag=True, help="Keep the key without asking the provider about it.")
@refusals_told
def set_key(slug: str, name: str, unverified: bool) -> None:
    """Test a provider key and keep it sealed. NAME is openai or openrouter; the key is read from standard input."""
    workspace = workspaces.get_by_slug(slug)
    record = provider_keys.save(workspace, name, secret_from_input("Provider key"), actor=actor(), check=not unverified)
    click.echo(f"{name} is connected to {slug} ({record.state}).", err=True)
