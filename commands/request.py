"""``flask request``: what owners have asked for by Contact sales."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told
from models.base import now
from services import access_requests
from services.parts import parts

group = AppGroup("request", help="See and decide requests for a plan.")


@group.command("list")
@click.option("--decided", is_flag=True, help="Those that are no longer open, the last decided first.")
@refusals_told
def list_requests(decided: bool) -> None:
    """Print number, state, workspace, plan, days since it was sent, reply address and words, separated by tabs.

    The open ones, the oldest first.
    """
    page = 1
    while (found := access_requests.decided(page) if decided else access_requests.queue(page)).rows:
        for request in found.rows:
            days = str((now() - request.created_at).days)
            use = " ".join(request.use.split())
            columns = [request.workspace.slug, request.plan, days, request.reply_to, request.volume, use]
            click.echo("\t".join([str(request.number), request.state, *columns]))
        page += 1


@group.command("grant")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--plan", help="Another plan than the one asked for.")
@click.option("--requests-per-minute", type=int, help="A limit of its own instead of the plan's.")
@click.option("--words", default="", help="Shown on the workspace's Plan page, such as when it is renewed.")
@click.option("--answer", default="", help="A message that goes out with the mail.")
@refusals_told
def grant(number: int, plan: str | None, requests_per_minute: int | None, words: str, answer: str) -> None:
    """Grant a request: the plan takes effect at once, and a mail goes out."""
    granted = access_requests.grant(
        number,
        plan=plan or access_requests.get(number).plan,
        requests_per_minute=requests_per_minute,
        plan_words=words,
        answer=answer,
        actor=actor(),
    )
    title = parts().plans.plan_of(granted.workspace).title
    click.echo(f"{granted.workspace.slug} is on {title}. The answer goes to {granted.reply_to}.", err=True)


@group.command("decline")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--words", required=True, help="Why. It is sent to who has asked.")
@refusals_told
def decline(number: int, words: str) -> None:
    """Decline a request; the reason is sent."""
    declined = access_requests.decline(number, answer=words, actor=actor())
    click.echo(f"Request {number} is declined. The reason goes to {declined.reply_to}.", err=True)
