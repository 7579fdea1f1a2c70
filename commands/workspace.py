"""``flask workspace``: see workspaces and grant plans."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import Dollars, actor, refusals_told
from services import spending, workspaces
from services.money import as_usd
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
@click.option("--words", help="Shown on its Plan page, such as when it is renewed. Without it: as they are.")
@click.option("--reason", help="It goes to the workspace's audit log.")
@refusals_told
def set_plan(slug: str, plan: str, requests_per_minute: int | None, words: str | None, reason: str | None) -> None:
    """Put a workspace on a plan, at once."""
    workspace = workspaces.get_by_slug(slug)
    workspaces.set_plan(
        workspace, plan, requests_per_minute=requests_per_minute, words=words, reason=reason, actor=actor()
    )
    click.echo(f"{slug} is on {parts().plans.plan_of(workspace).title}.", err=True)


@group.command("set-limits")
@click.argument("slug")
@click.option("--daily", type=Dollars(), help="What it may spend in a UTC day, in US dollars. Without it: no limit.")
@click.option("--monthly", type=Dollars(), help="What it may spend in a UTC month. Without it: no limit.")
@click.option("--allow-unknown-price", is_flag=True, help="Let models of unknown price be called under a limit.")
@refusals_told
def set_limits(slug: str, daily: int | None, monthly: int | None, allow_unknown_price: bool) -> None:
    """Set both spending limits of a workspace, at once."""
    spending.set_limits(
        workspaces.get_by_slug(slug),
        daily_nano_usd=daily,
        monthly_nano_usd=monthly,
        allow_unknown_price=allow_unknown_price,
        actor=actor(),
    )
    told = [
        f"${as_usd(amount)} a {period}" for period, amount in (("day", daily), ("month", monthly)) if amount is not None
    ]
    click.echo(f"{slug} may spend {' and '.join(told) or 'without a limit'}.", err=True)
