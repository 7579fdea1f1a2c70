"""``flask workspace``: see workspaces and grant plans."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told
from services import workspaces
from services.parts import parts

group = AppGroup("workspace", help="See workspaces and grant plans.")


@group.command("list")
@refusals_told
def list_workspaces() -> None:
    """Print slug, plan, requests per minute and name of every workspace, separated by tabs."""
    plans = parts().plans
    for workspace in workspaces.all_workspaces():
        limit = plans.requests_per_minute(workspace)
        click.echo("\t".join([workspace.slug, workspace.plan, str(limit) if limit else "-", workspace.name]))


@group.command("set-plan")
@click.argument("slug")
@click.argument("plan")
@click.option("--requests-per-minute", type=int, help="A limit of its own instead of the plan's.")
@refusals_told
def set_plan(slug: str, plan: str, requests_per_minute: int | None) -> None:
    """Put a workspace on a plan, at once."""
    workspace = workspaces.get_by_slug(slug)
    workspaces.set_plan(workspace, plan, requests_per_minute=requests_per_minute, actor=actor())
    click.echo(f"{slug} is on {parts().plans.plan_of(workspace).title}.", err=True)
