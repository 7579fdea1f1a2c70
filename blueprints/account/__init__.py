"""Sign-up, sign-in, sign-out and the operator's first start."""

from blueprints.account.routes import bp

__all__ = ["bp"]
