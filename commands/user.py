"""``flask user``: make, see, close and reopen accounts, and let people back into theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from flask.cli import AppGroup

from commands.tools import actor, refusals_told, secret_from_input
from services import accounts, customers, second_factor

_Command = TypeVar("_Command", bound=Callable[..., Any])

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


def _reason(usual: str) -> Callable[[_Command], _Command]:
    return click.option("--reason", default=usual, help="It goes to the audit logs of the user's workspaces.")


@group.command("close")
@click.argument("email")
@_reason("Closed by command.")
@refusals_told
def close(email: str, reason: str) -> None:
    """End a user's sessions and let them in no more. Their workspaces and keys stay as they are."""
    _act_on(email, customers.close_account, reason, "closed")


@group.command("reopen")
@click.argument("email")
@_reason("Reopened by command.")
@refusals_told
def reopen(email: str, reason: str) -> None:
    """Let a user in again whose account was closed."""
    _act_on(email, customers.reopen_account, reason, "open again")


def _act_on(email: str, act: Callable[..., None], reason: str, outcome: str) -> None:
    user = customers.get_user_by_email(email)
    act(user, reason=reason, actor=actor())
    click.echo(f"The account {user.email} is {outcome}.", err=True)


@group.command("reset-second-factor")
@click.argument("email")
@refusals_told
def reset_second_factor(email: str) -> None:
    """Forget a person's authenticator app, passkeys and recovery codes.

    Make sure first that it is the person who asks: their password alone signs in afterwards. They are told by mail.
    """
    second_factor.reset(email, actor())
