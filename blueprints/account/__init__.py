"""Sign-up, sign-in with its steps, the operator's first start, and what a person's account is guarded by."""

from blueprints.account import passkeys, prove, second_factor, security, sign_in
from blueprints.account.routes import bp

__all__ = ["bp", "passkeys", "prove", "second_factor", "security", "sign_in"]
