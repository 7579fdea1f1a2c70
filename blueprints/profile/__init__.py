"""How a person is called, how pages look and tell the time for them, and what they are told by mail."""

from blueprints.profile import notices
from blueprints.profile.routes import bp

# Importing it adds its page.
__all__ = ["bp", "notices"]
