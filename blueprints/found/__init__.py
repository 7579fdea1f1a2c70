"""The page for whoever has found a key."""

from blueprints.found.routes import bp

__all__ = ["bp"]
