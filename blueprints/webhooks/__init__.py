"""Webhooks: where the workspace is told of events, and what was delivered."""

from blueprints.webhooks.routes import bp

__all__ = ["bp"]
