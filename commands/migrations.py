"""``flask db ...``: Flask-Migrate's own commands."""

from __future__ import annotations

import click

from commands.tools import refusals_told


@click.command(
    "db", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
@refusals_told
def command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Perform database migrations."""
    # With Alembic it is much to load for the other commands, and for workers, which are forked from one.
    from flask_migrate.cli import db

    with db.make_context("db", list(arguments), parent=context.parent) as inner:
        db.invoke(inner)
