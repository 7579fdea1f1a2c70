"""The commands of ``flask --app app ...``: callers of services, as views are."""

from __future__ import annotations

from flask import Flask

import config
from commands import audit, backup, doctor, key, migrations, provider, request, scope, serve, user, vault, workspace


def init_app(app: Flask, settings: config.Settings) -> None:
    """Register every command."""
    for noun in (audit, key, provider, request, scope, user, vault, workspace):
        app.cli.add_command(noun.group)
    app.cli.add_command(doctor.command)
    app.cli.add_command(migrations.command)
    app.cli.add_command(backup.backup)
    app.cli.add_command(backup.restore)
    app.cli.add_command(serve.command(settings))
