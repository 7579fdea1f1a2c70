"""``flask provider``: connect workspaces to providers."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told, secret_from_input
from models import ProviderKey
from services import provider_keys, workspaces

group = AppGroup("provider", help="Connect workspaces to providers.")

of_workspace = click.option("--workspace", "slug", required=True, help="Slug of the workspace.")


@group.command("set")
@of_workspace
@click.argument("name")
@click.option("--label", help="What the key is called in lists. Default: as before.")
@click.option("--unverified", is_flag=True, help="Keep the key without asking the provider about it.")
@refusals_told
def set_key(slug: str, name: str, label: str | None, unverified: bool) -> None:
    """Test a provider key and keep it sealed. NAME is openai or openrouter; the key is read from standard input."""
    workspace = workspaces.get_by_slug(slug)
    key = secret_from_input("Provider key")
    record = provider_keys.save(workspace, name, key, actor=actor(), label=label, check=not unverified)
    click.echo(f"{name} is connected to {slug} ({record.state}).", err=True)


@group.command("list")
@click.option("--workspace", "slug", help="Only keys of this workspace.")
@refusals_told
def list_keys(slug: str | None) -> None:
    """Print workspace, provider, state, moment of the last check and label of every key, separated by tabs."""
    for workspace in [workspaces.get_by_slug(slug)] if slug else workspaces.all_workspaces():
        for key in provider_keys.of_workspace(workspace):
            checked = f"{key.checked_at:%Y-%m-%dT%H:%M:%SZ}" if key.checked_at else "-"
            click.echo("\t".join([workspace.slug, key.provider, key.state, checked, key.label]))


@group.command("test")
@of_workspace
@click.argument("name")
@refusals_told
def test_key(slug: str, name: str) -> None:
    """Ask the provider about the key that is kept. Exit status 1: it does not work now."""
    key = provider_keys.check_saved(workspaces.get_by_slug(slug), name)
    click.echo(_told(key), err=True)
    if key.state != provider_keys.VALID:
        raise click.exceptions.Exit(1)


@group.command("delete")
@of_workspace
@click.argument("name")
@refusals_told
def delete_key(slug: str, name: str) -> None:
    """Remove a key: the next call has none."""
    provider_keys.delete(workspaces.get_by_slug(slug), name, actor=actor())
    click.echo(f"{name} is disconnected from {slug}.", err=True)


def _told(key: ProviderKey) -> str:
    words = f": {key.state_words}" if key.state_words else "."
    return f"The {key.provider} key is {key.state}{words}"
