"""Forms of people who are not signed in yet."""

from __future__ import annotations

from wtforms import BooleanField, EmailField, PasswordField
from wtforms.validators import DataRequired, InputRequired

from blueprints.forms import PortalForm, stripped
from services.secret import Secret

_EMAIL = {"autocomplete": "username", "spellcheck": "false", "autocapitalize": "none", "maxlength": 254}


class SignInForm(PortalForm):
    """An e-mail address and a password. The password never goes back into the page."""

    email = EmailField(
        "E-mail address", [DataRequired("Enter your e-mail address")], filters=[stripped], render_kw=_EMAIL
    )
    password = PasswordField(
        "Password", [InputRequired("Enter your password")], render_kw={"autocomplete": "current-password"}
    )

    remember = BooleanField("Stay signed in on this device for 30 days")

    def credentials(self) -> tuple[str, Secret]:
        """Return the address and the password, wrapped."""
        return self.email.data or "", Secret(self.password.data or "")


class NewPasswordForm(PortalForm):
    """Sign-up, and the making of the operator. The service alone judges what is given."""

    email = EmailField("E-mail address", filters=[stripped], render_kw=_EMAIL)
    password = PasswordField("Password", render_kw={"autocomplete": "new-password"})

    def credentials(self) -> tuple[str, Secret]:
        """Return the address and the password, wrapped."""
        return self.email.data or "", Secret(self.password.data or "")
