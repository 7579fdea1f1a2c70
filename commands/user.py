"""``flask user``: make accounts, and let people back into theirs."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told, secret_from_input
from services import accounts, second_factor

group = AppGroup("user", help="Make accounts, and let people back into theirs.")


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


@group.command("reset-second-factor")
@click.argument("email")
@refusals_told
def reset_second_factor(email: str) -> None:
    """Forget a person's authenticator app, passkeys and recovery codes.

    Make sure first that it is the person who asks: their password alone signs in afterwards. They are told by mail.
    """
    second_factor.reset(email, actor())
