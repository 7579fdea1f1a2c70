"""The scopes that a workspace defines for its own services."""

from blueprints.scopes.routes import bp

__all__ = ["bp"]
