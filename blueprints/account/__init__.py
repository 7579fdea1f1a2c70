"""Sign-up, sign-in with its steps, the operator's first start, and what a person can change about their account."""

from blueprints.account import (
    emails,
    end,
    identities,
    passkeys,
    prove,
    prove_elsewhere,
    reset,
    second_factor,
    security,
    sign_in,
    sign_up,
)
from blueprints.account.routes import bp

# Importing these adds their pages.
__all__ = [
    "bp",
    "emails",
    "end",
    "identities",
    "passkeys",
    "prove",
    "prove_elsewhere",
    "reset",
    "second_factor",
    "security",
    "sign_in",
    "sign_up",
]
