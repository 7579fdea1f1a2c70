"""The workspace's connections to model providers."""

from blueprints.providers.routes import bp

__all__ = ["bp"]
