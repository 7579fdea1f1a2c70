"""Sign-up, sign-in, sign-out, the operator's first start, and what a person can change about their account."""

from blueprints.account import emails, identities, reset, security, sign_up  # noqa: F401 - they add their pages
from blueprints.account.routes import bp

__all__ = ["bp"]
