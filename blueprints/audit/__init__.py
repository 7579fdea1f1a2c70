"""The audit log of a workspace: what was done, by whom and from where, for owners and admins."""

from blueprints.audit.routes import bp

__all__ = ["bp"]
