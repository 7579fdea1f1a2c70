"""Whether signing in to an account takes more than its password."""

from __future__ import annotations

from sqlalchemy import or_, select

from extensions import db
from models import Passkey, TotpSecret, User


def has_second_factor(user: User) -> bool:
    """Tell whether an authenticator app or a passkey is asked for beside the password."""
    app = select(TotpSecret.id).where(TotpSecret.user_id == user.id, TotpSecret.confirmed_at.is_not(None))
    passkey = select(Passkey.id).where(Passkey.user_id == user.id)
    return bool(db.session.scalar(select(or_(app.exists(), passkey.exists()))))
