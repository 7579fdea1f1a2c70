"""The error family: every refusal the portal foresees, with what the caller is told.

    PortalError
    ├── InvalidRequest 400        InvalidInput 422, AlreadyDone 409
    ├── AuthenticationFailed 401  WrongCredentials
    ├── BillingRefused 402        SpendingLimitReached, UnknownPrice
    ├── PermissionRefused 403     PlanRequired, SignUpClosed, SetUpLinkUsed 410, LinkUsed 410
    ├── NotFound 404
    ├── RateLimited 429
    ├── ProviderFailed 502        whatever a provider did instead of answering
    └── ServiceUnavailable 503    DatabaseAway, LimiterAway

``message`` is a public sentence; the cause goes to the log as ``__cause__``. ``blueprints/errors.py`` turns all of
them into a page or into the one JSON shape of ``/v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PortalError(Exception):
    """A refusal with a status, a type and code for programs, a sentence for people, and headers."""

    status = 500
    type = "server_error"
    code = "internal_error"
    message = "Something went wrong on our side."

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        status: int | None = None,
        type: str | None = None,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.message = message or self.message
        self.code = code or self.code
        self.status = status or self.status
        self.type = type or self.type
        self.param = param
        self.details = dict(details or {})
        self.headers = dict(headers or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.headers.setdefault("Retry-After", str(retry_after))
        super().__init__(self.message)


class InvalidRequest(PortalError):
    """The request cannot be understood or makes no sense."""

    status, type, code = 400, "invalid_request_error", "invalid_request"
    message = "The request is not valid."


class InvalidInput(InvalidRequest):
    """Values were given that cannot be taken; ``fields`` says which, in a sentence each."""

    status, code = 422, "invalid_input"

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        super().__init__(" ".join(fields.values()), param=next(iter(fields), None), details={"fields": dict(fields)})


class AlreadyDone(InvalidRequest):
    """The same request was carried out before; ``object_id`` is what it made."""

    status, code = 409, "already_done"
    message = "This was already done."

    def __init__(self, object_id: str) -> None:
        self.object_id = object_id
        super().__init__()


class AuthenticationFailed(PortalError):
    """Nobody we know."""

    status, type, code = 401, "authentication_error", "authentication_required"
    message = "Authentication is required."


class WrongCredentials(AuthenticationFailed):
    """E-mail address and password do not belong together, or there is no such account: never said which."""

    code = "wrong_credentials"
    message = "That e-mail address and password do not match an account."


class BillingRefused(PortalError):
    """The call would cost more than may be spent."""

    status, type, code = 402, "billing_error", "spending_limit_reached"
    message = "A spending limit is reached."


class SpendingLimitReached(BillingRefused):
    """A spending limit of the key or its workspace leaves no room for the call."""


class UnknownPrice(BillingRefused):
    """The model's price is unknown, and a spending limit holds that does not allow such models."""

    code = "model_price_unknown"
    message = "The price of the model is unknown."


class PermissionRefused(PortalError):
    """Somebody we know, who may not do this."""

    status, type, code = 403, "permission_error", "permission_denied"
    message = "You may not do this."


class PlanRequired(PermissionRefused):
    """The workspace's plan has no API access."""

    code = "plan_required"
    message = "API keys come with the Agency plan."


class SetUpLinkUsed(PermissionRefused):
    """The one-time set-up link was used, or is not this portal's."""

    status, code = 410, "set_up_link_used"
    message = "This set-up link is no longer valid."


class LinkUsed(PermissionRefused):
    """A link from a mail that was used, is over, or never was: never said which."""

    status, code = 410, "link_used"
    message = "This link is no longer valid. It was used, or it is too old."


class SignUpClosed(PermissionRefused):
    """The operator has closed sign-up."""

    code = "sign_up_closed"
    message = "Sign-up is closed. Ask the operator of this portal for an account."


class NotFound(PortalError):
    """Does not exist, or belongs to somebody else: never said which."""

    status, type, code = 404, "invalid_request_error", "not_found"
    message = "There is no such page, or it is not yours."


class RateLimited(PortalError):
    """Too many requests; ``retry_after`` says in how many seconds one is taken again."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, retry_after: int, **more: Any) -> None:
        seconds = "second" if retry_after == 1 else "seconds"
        super().__init__(
            f"Rate limit exceeded. Please retry after {retry_after} {seconds}.", retry_after=retry_after, **more
        )


class ProviderFailed(PortalError):
    """A provider refused or failed; the code says that it was the provider and not the portal."""

    status, type, code = 502, "provider_error", "provider_error"
    message = "The provider did not answer properly."


class ServiceUnavailable(PortalError):
    """The portal cannot work for a moment; nothing was changed."""

    status, type, code = 503, "service_unavailable", "service_unavailable"
    message = "The service is briefly unavailable. Please retry."

    def __init__(self, message: str | None = None, *, retry_after: int = 2, **more: Any) -> None:
        super().__init__(message, retry_after=retry_after, **more)


class DatabaseAway(ServiceUnavailable):
    """The portal's own database did not answer."""


class LimiterAway(ServiceUnavailable):
    """The store that counts rate limits did not answer; an unlimited request is not let through."""
