"""The first page after signing in."""

from blueprints.overview.routes import bp

__all__ = ["bp"]
