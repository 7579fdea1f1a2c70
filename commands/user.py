"""``flask user``: make, see, close and reopen accounts, and let people back into theirs."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told, secret_from_input
from services import accounts, customers, second_factor

group = AppGroup("user", help="Make, see, close and reopen accounts, and let people back into theirs.")


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


@group.command("list")
@refusals_told
def list_users() -> None:
    """Print id, e-mail address, "operator" or "-", "open" or "closed" and last sign-in of everybody, with tabs."""
    for user in customers.all_users():
        columns = [
            user.id,
            user.email,
            "operator" if user.is_operator else "-",
            "closed" if user.closed_at else "open",
            f"{user.last_sign_in_at:%Y-%m-%dT%H:%M:%SZ}" if user.last_sign_in_at else "-",
        ]
        click.echo("\t".join(columns))


@group.command("close")
@click.argument("email")
@click.option("--reason", default="Closed by command.", help="It goes to the audit logs of the user's workspaces.")
@refusals_told
def close(email: str, reason: str) -> None:
    """End a user's sessions and let them in no more. Their workspaces and keys stay as they are."""
    user = customers.get_user_by_email(email)
    customers.close_account(user, reason=reason, actor=actor())
    click.echo(f"The account {user.email} is closed.", err=True)


@group.command("reopen")
@click.argument("email")
@click.option("--reason", default="Reopened by command.", help="It goes to the audit logs of the user's workspaces.")
@refusals_told
def reopen(email: str, reason: str) -> None:
    """Let a user in again whose account was closed."""
    user = customers.get_user_by_email(email)
    customers.reopen_account(user, reason=reason, actor=actor())
    click.echo(f"The account {user.email} is open again.", err=True)


@group.command("reset-second-factor")
@click.argument("email")
@refusals_told
def reset_second_factor(email: str) -> None:
    """Forget a person's authenticator app, passkeys and recovery codes.

    Make sure first that it is the person who asks: their password alone signs in afterwards. They are told by mail.
    """
    second_factor.reset(email, actor())
