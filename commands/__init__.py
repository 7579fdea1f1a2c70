"""The commands of ``flask --app app ...``: callers of services, as views are."""

from __future__ import annotations

from flask import Flask

import config
from commands import audit, backup, doctor, key, provider, scope, serve, user, vault, workspace


def init_app(app: Flask, settings: config.Settings) -> None:
    """Register every command."""
    for group in (audit.group, key.group, provider.group, scope.group, user.group, vault.group, workspace.group):
        app.cli.add_command(group)
    app.cli.add_command(doctor.command)
    app.cli.add_command(backup.backup)
    app.cli.add_command(backup.restore)
    app.cli.add_command(serve.command(settings))
