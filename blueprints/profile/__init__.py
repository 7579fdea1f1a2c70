"""How a person is called, and how pages look and tell the time for them."""

from blueprints.profile.routes import bp

__all__ = ["bp"]
