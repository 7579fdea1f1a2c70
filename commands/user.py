"""``flask user``: make accounts."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told, secret_from_input
from services import accounts

group = AppGroup("user", help="Make accounts.")


@group.command("create")
@click.argument("email")
@click.option("--operator", is_flag=True, help="Let the user run the portal.")
@refusals_told
def create(email: str, operator: bool) -> None:
    """Make a user and their workspace; print the workspace's slug.

    The password is read from standard input.
    """
    workspace = accounts.create_user(email, secret_from_input("Password"), is_operator=operator, actor=actor())
    click.echo(workspace.slug)
