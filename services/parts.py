"""What the services are made with: built once by ``app.py`` from the settings, found here by everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from models.quick import Quick
from services.digest import Digester
from services.form_seal import FormSeal
from services.gateway.brain_rules import Rules
from services.gateway.breaker import Breakers
from services.gateway.providers import Provider
from services.gateway.upstream import Upstream
from services.key_format import KeyFormat
from services.mail_transport import Post
from services.outbound import Outbound
from services.plans import PlanTable
from services.rate_limits import RateLimits
from services.relying_party import RelyingParty
from services.secret import Secret
from services.turns import Turns
from services.vault import Vault

if TYPE_CHECKING:
    # Loaded when one is set.
    from services.oidc import OidcProvider

    # It uses the parts itself.
    from services.readiness import Readiness

_NAME = "arka"


@dataclass(frozen=True, slots=True)
class Parts:
    """The tools that settings decide about, one set for each app."""

    quick: Quick
    turns: Turns
    key_format: KeyFormat
    key_digests: Digester
    fingerprint_digests: Digester
    session_digests: Digester
    setup_digests: Digester
    attempt_digests: Digester
    recovery_digests: Digester
    form_seal: FormSeal
    # Who passkeys are made for; None where the portal's address allows none.
    relying_party: RelyingParty | None
    brand: str
    link_digests: Digester
    # Whether nobody gets further than to setting up a second factor without one.
    second_factor_required: bool
    # Whether strangers may make accounts.
    sign_up_open: bool
    # What nobody's password may be made of: the names of this portal.
    own_words: tuple[str, ...]
    # The operator's identity provider, if one is set.
    oidc: OidcProvider | None
    invitation_digests: Digester
    audit_digests: Digester
    vault: Vault
    plans: PlanTable
    limits: RateLimits
    auth_failures_per_minute: int
    providers: dict[str, Provider]
    upstream: Upstream
    brain: Rules
    breakers: Breakers
    # How often a provider is asked again, and how long a call may take until its answer begins, or is there whole.
    provider_retries: int
    provider_total_seconds: float
    post: Post
    sales_email: str
    outbound: Outbound
    readiness: Readiness
    metrics_token: Secret | None


# Asked for several times in a call: this is a fifth of what the proxy takes for each of its attributes.
_app_at_work = current_app._get_current_object  # type: ignore[attr-defined]


def parts() -> Parts:
    """Return the parts of the app at work."""
    made: Parts = _app_at_work().extensions[_NAME]
    return made


def install(app_extensions: dict[str, object], made: Parts) -> None:
    """Put the parts where ``parts`` finds them."""
    app_extensions[_NAME] = made
