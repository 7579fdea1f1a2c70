"""The workspaces somebody belongs to."""

from blueprints.workspace.routes import bp

__all__ = ["bp"]
