"""The workspace's plan, and asking for another one."""

from blueprints.plan.routes import bp

__all__ = ["bp"]
