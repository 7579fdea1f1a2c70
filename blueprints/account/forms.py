"""Forms of accounts. Passwords never go back into a page."""

from __future__ import annotations

from wtforms import BooleanField, EmailField, PasswordField
from wtforms.validators import DataRequired, InputRequired

from blueprints.forms import PortalForm, stripped
from services.secret import Secret

_EMAIL = {"autocomplete": "username", "spellcheck": "false", "autocapitalize": "none", "maxlength": 254}
_NEW_PASSWORD = {"autocomplete": "new-password"}
_CURRENT_PASSWORD = {"autocomplete": "current-password"}


class SignInForm(PortalForm):
    """An e-mail address and a password."""

    email = EmailField(
        "E-mail address", [DataRequired("Enter your e-mail address")], filters=[stripped], render_kw=_EMAIL
    )
    password = PasswordField("Password", [InputRequired("Enter your password")], render_kw=_CURRENT_PASSWORD)

    remember = BooleanField("Stay signed in on this device for 30 days")

    def credentials(self) -> tuple[str, Secret]:
        """Return the address and the password, wrapped."""
        return self.email.data or "", Secret(self.password.data or "")


class NewPasswordForm(PortalForm):
    """The making of the operator. The service alone judges what is given."""

    email = EmailField("E-mail address", filters=[stripped], render_kw=_EMAIL)
    password = PasswordField("Password", render_kw=_NEW_PASSWORD)

    def credentials(self) -> tuple[str, Secret]:
        """Return the address and the password, wrapped."""
        return self.email.data or "", Secret(self.password.data or "")


class AddressForm(PortalForm):
    """Where a link is to be sent. The service alone judges it."""

    email = EmailField("E-mail address", filters=[stripped], render_kw=_EMAIL)


class ChoosePasswordForm(PortalForm):
    """A new password behind a link. The service alone judges it."""

    password = PasswordField("Password", render_kw=_NEW_PASSWORD)

    def secret(self) -> Secret:
        """Return the new password, wrapped."""
        return Secret(self.password.data or "")


class ChangePasswordForm(PortalForm):
    """The present password, unless there is none, and the new one."""

    current = PasswordField("Present password", render_kw=_CURRENT_PASSWORD)
    password = PasswordField("New password", render_kw=_NEW_PASSWORD)

    def secrets(self) -> tuple[Secret, Secret]:
        """Return both, wrapped."""
        return Secret(self.current.data or ""), Secret(self.password.data or "")


class ChangeEmailForm(PortalForm):
    """The new address, and the password, unless there is none."""

    email = EmailField("New e-mail address", filters=[stripped], render_kw={**_EMAIL, "autocomplete": "email"})
    password = PasswordField("Password", render_kw=_CURRENT_PASSWORD)

    def secret(self) -> Secret:
        """Return the password, wrapped."""
        return Secret(self.password.data or "")


class PlainForm(PortalForm):
    """A button alone."""
