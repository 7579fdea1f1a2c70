"""What the link of an invitation opens."""

from blueprints.invitations.routes import bp

__all__ = ["bp"]
