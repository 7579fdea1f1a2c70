"""What an identity provider says of somebody, or why it does not."""

from __future__ import annotations

from dataclasses import dataclass

from services.errors import PermissionRefused, ServiceUnavailable

# How far the provider's clock may be off.
LEEWAY_SECONDS = 60


class ProviderAway(ServiceUnavailable):
    """The identity provider did not answer, or not as one does."""

    code = "identity_provider_away"
    message = "The identity provider does not answer. Sign in another way, or try again in a moment."


class IdentityRefused(PermissionRefused):
    """What came back does not prove who somebody is, or that person may not come in this way."""

    code = "identity_refused"
    message = "This sign-in could not be completed. Begin again."


@dataclass(frozen=True, slots=True)
class Claims:
    """Who somebody is, as the provider says it. ``email`` is None unless the provider calls it verified.

    ``authenticated_at`` is when they last proved it there, in seconds since 1970; None when the provider does not say.
    """

    issuer: str
    subject: str
    email: str | None
    authenticated_at: float | None = None
