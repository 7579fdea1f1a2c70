"""The gate of ``/v1``: who calls, and may they? One ordered list of checks, one verdict.

Pages, ``/v1/keys/verify`` and the Bearer decorator judge by this list. An expected "no" is a verdict and not an
exception; ``REASONS`` says what each code means to the caller.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select

from models import ApiKey, ApiKeySecret, Workspace
from models.base import now
from models.quick import DatabaseUnavailable, Prepared
from services import spending
from services.errors import DatabaseAway, LimiterAway
from services.key_format import ParsedKey
from services.parts import Parts, parts
from services.permissions import Scope
from services.provider_keys import ALL_AS_TEXT
from services.rate_limits import RateState, StoreUnavailable
from services.restrictions import address_allowed, model_allowed, network_of, origin_allowed
from services.secret import Secret

# A body that is longer than this in coming may be one that its caller held back while the key was ended.
LATE_SECONDS = 0.5

# Made for each call, hence named tuples and no frozen dataclasses, which take several times as long.


class Presented(NamedTuple):
    """What a caller showed: the two key headers as sent, and the facts the checks need. Nothing of the web."""

    authorization: str | None
    x_api_key: str | None
    address: str
    encrypted: bool
    from_browser: bool
    # The browser's Origin header, if it sent one.
    origin: str | None = None


class KeyFacts(NamedTuple):
    """The key, its secret and its workspace as one read found them.

    ``key_id`` and ``secret_id`` are empty for a person at the playground, who has no key.
    """

    key_id: str
    secret_id: str
    secret_ends_at: datetime | None
    workspace_id: str
    name: str
    kind: str
    environment: str
    scopes: list[str]
    expires_at: datetime | None
    disabled_at: datetime | None
    plan: str
    # The operator's figure for the workspace, and the key's own beside it.
    requests_per_minute: int | None
    allowed_models: list[str]
    allowed_networks: list[str]
    allowed_origins: list[str]
    key_requests_per_minute: int | None
    workspace_slug: str
    # Spending limits in nano-dollars, and whether their owner allows models of unknown price under them.
    daily_limit_nano_usd: int | None
    monthly_limit_nano_usd: int | None
    allow_unknown_price: bool
    workspace_daily_limit_nano_usd: int | None
    workspace_monthly_limit_nano_usd: int | None
    workspace_allow_unknown_price: bool
    # The workspace's sealed provider keys as one text (``provider_keys.ALL_AS_TEXT``); None when there are none.
    provider_keys: str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """What a refusal is to the caller: HTTP status, error type and public sentence."""

    status: int
    type: str
    message: str


REASONS = {
    "https_required": Reason(403, "permission_error", "Use HTTPS. A key sent over plain HTTP can be read on the way."),
    "authentication_required": Reason(
        401, "authentication_error", "Send your API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
    ),
    "ambiguous_credentials": Reason(
        400, "invalid_request_error", "Send the key in one header, Authorization or X-API-Key, not in both."
    ),
    "invalid_api_key": Reason(403, "permission_error", "The provided API key is invalid."),
    "disabled_api_key": Reason(403, "permission_error", "The API key is disabled."),
    "expired_api_key": Reason(403, "permission_error", "API key has expired"),
    "plan_required": Reason(403, "permission_error", "The workspace's plan has no API access."),
    "ip_not_allowed": Reason(403, "permission_error", "The API key may not be used from the address {address}."),
    "origin_not_allowed": Reason(403, "permission_error", "The API key may not be used from the origin {origin}."),
    "model_not_allowed": Reason(403, "permission_error", "The API key may not use the model '{model}'."),
    "secret_key_in_browser": Reason(
        403,
        "permission_error",
        "A secret key must not be used in a browser, where everybody can read it. Use a publishable key, "
        "and replace this one.",
    ),
    "insufficient_scope": Reason(403, "permission_error", "Scope '{required}' is required for this endpoint"),
    "rate_limit_exceeded": Reason(
        429, "rate_limit_error", "Rate limit exceeded. Please retry after {retry_after} seconds."
    ),
    "spending_limit_reached": Reason(402, "billing_error", spending.SENTENCE),
}


class Verdict(NamedTuple):
    """``code`` is None for a yes. ``key`` is set as soon as a key was recognised, also when it is refused."""

    code: str | None
    key: KeyFacts | None
    rate: RateState | None
    details: dict[str, Any]
    # What was shown when it had the form of a key but is none that works, so that an ended key can be recognised.
    text: Secret | None = None
    # Every limit that counts the call, by name, and which of them ``rate`` tells.
    limits: tuple[tuple[str, int], ...] = ()
    tightest: str = ""

    @property
    def allowed(self) -> bool:
        return self.code is None

    @property
    def message(self) -> str:
        """The public sentence of a refusal."""
        if self.code is None:
            return ""
        return REASONS[self.code].message.format(**self.details)


class Undecided(DatabaseAway):
    """The database went away between two checks; ``so_far`` is what was known by then, and no yes."""

    def __init__(self, so_far: Verdict) -> None:
        super().__init__()
        self.so_far = so_far


@dataclass(slots=True)
class _Case:
    """What is known so far while the checks run."""

    presented: Presented
    scope: str | None
    parts: Parts
    cost: int
    of_workspace: str | None
    # Whether the checks stand still until the model of the request is read, and then which it is.
    waits_for_model: bool = False
    model_is_read: bool = False
    model: str | None = None
    text: str = ""
    parsed: ParsedKey | None = None
    key: KeyFacts | None = None
    rate: RateState | None = None
    details: dict[str, Any] = field(default_factory=dict)
    limits: tuple[tuple[str, int], ...] = ()
    tightest: str = ""


def judge(
    presented: Presented,
    scope: str | None,
    *,
    model: Callable[[], str | None] = lambda: None,
    cost: int = 1,
    of_workspace: str | None = None,
) -> Verdict:
    """Run the checks in their order; the first that says no gives the verdict.

    ``model`` is asked for the model of the request only when the key is restricted to some. ``cost`` is what the call
    counts against the rate; 0 only looks. With ``of_workspace`` somebody we know asks about a key: one of any other
    workspace is as good as unknown, and no failure is counted against an address. Raises DatabaseAway or LimiterAway
    when the portal cannot tell: that is never a yes and never a no. Undecided tells what was known by then.
    """
    case = _Case(presented, scope, parts(), cost, of_workspace)
    checks = iter(_CHECKS)
    try:
        verdict = _run(case, checks)
        if case.waits_for_model:
            # It is read from the body, for which a caller may keep us waiting: in nobody's turn.
            asked_at = time.monotonic()
            case.model, case.model_is_read, case.waits_for_model = model(), True, False
            is_late = time.monotonic() - asked_at > LATE_SECONDS
            verdict = _run(case, _CHECKS if is_late else itertools.chain([_model], checks))
    except DatabaseUnavailable as error:
        raise Undecided(_verdict(case, DatabaseAway.code)) from error
    except StoreUnavailable as error:
        raise LimiterAway from error
    return verdict


def judge_again(presented: Presented, scope: str | None, before: Verdict) -> Verdict:
    """Run the checks before the rate once more, for a call that was let in, was counted, and whose body was late.

    Raises DatabaseAway or LimiterAway when the portal cannot tell.
    """
    case = _Case(presented, scope, parts(), 0, None, rate=before.rate, limits=before.limits, tightest=before.tightest)
    try:
        return _run(case, _CHECKS_BEFORE_RATE)
    except DatabaseUnavailable as error:
        raise DatabaseAway from error
    except StoreUnavailable as error:
        raise LimiterAway from error


def _run(case: _Case, checks: Iterable[Check]) -> Verdict:
    """Run checks in one turn at the database, until one says no or has to wait for the model of the request."""
    with case.parts.turns:
        for check in checks:
            code = check(case)
            if code is not None:
                return _refusal(case, code)
            if case.waits_for_model:
                break
    return _verdict(case, None)


def _verdict(case: _Case, code: str | None, ended: Secret | None = None) -> Verdict:
    return Verdict(code, case.key, case.rate, case.details, ended, case.limits, case.tightest)


def _refusal(case: _Case, code: str) -> Verdict:
    if case.key is None and case.of_workspace is None:
        # Somebody who tries one key after another is slowed down, whatever the key looks like.
        network = network_of(case.presented.address)
        tries = case.parts.limits.hit(f"failures:{network}", case.parts.auth_failures_per_minute)
        if not tries.allowed:
            return Verdict("rate_limit_exceeded", None, None, {"retry_after": tries.retry_after})
    elif case.key is not None and case.rate is None:
        limits = _limits(case)
        _report(case, limits, case.parts.limits.peek_all(limits))
    return _verdict(case, code, Secret(case.text) if code == "invalid_api_key" else None)


# ---- the checks, in the order of CHECKS


def _encrypted(case: _Case) -> str | None:
    return None if case.presented.encrypted else "https_required"


def _form(case: _Case) -> str | None:
    authorization, x_api_key = case.presented.authorization, case.presented.x_api_key
    if authorization is not None and x_api_key is not None:
        return "ambiguous_credentials"
    if authorization is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return "authentication_required"
    else:
        text = x_api_key or ""
    case.text = text.strip(" ")
    case.parsed = case.parts.key_format.parse(case.text)
    return "authentication_required" if case.parsed is None else None


def _checksum(case: _Case) -> str | None:
    assert case.parsed is not None
    if case.parsed.checksum_holds:
        return None
    # As slow as an unknown key, so that the time tells nothing.
    _find(case.parts, case.text)
    return "invalid_api_key"


def _known(case: _Case) -> str | None:
    key = _find(case.parts, case.text)
    if key is None or (key.secret_ends_at is not None and key.secret_ends_at <= now()):
        return "invalid_api_key"
    if case.of_workspace not in (None, key.workspace_id):
        return "invalid_api_key"
    case.key = key
    return None


def _enabled(case: _Case) -> str | None:
    assert case.key is not None
    return None if case.key.disabled_at is None else "disabled_api_key"


def _expiry(case: _Case) -> str | None:
    assert case.key is not None
    expires_at = case.key.expires_at
    if expires_at is None or now() < expires_at:
        return None
    case.details = {"expired_at": expires_at.isoformat().replace("+00:00", "Z")}
    return "expired_api_key"


def _plan(case: _Case) -> str | None:
    assert case.key is not None
    return None if case.parts.plans.plan_named(case.key.plan).api_access else "plan_required"


def _address(case: _Case) -> str | None:
    assert case.key is not None
    if address_allowed(case.presented.address, case.key.allowed_networks):
        return None
    case.details = {"address": case.presented.address}
    return "ip_not_allowed"


def _origin(case: _Case) -> str | None:
    assert case.key is not None
    if case.key.kind == "secret":
        return "secret_key_in_browser" if case.presented.from_browser else None
    if origin_allowed(case.presented.origin, case.key.allowed_origins):
        return None
    case.details = {"origin": case.presented.origin or "none"}
    return "origin_not_allowed"


def _scope(case: _Case) -> str | None:
    assert case.key is not None
    if case.scope is None or case.scope in case.key.scopes:
        return None
    case.details = {"required": case.scope, "granted": case.key.scopes}
    return "insufficient_scope"


def _model(case: _Case) -> str | None:
    assert case.key is not None
    if not case.key.allowed_models:
        return None
    case.waits_for_model = not case.model_is_read
    if case.waits_for_model or case.model is None or model_allowed(case.model, case.key.allowed_models):
        return None
    case.details = {"model": case.model, "allowed": case.key.allowed_models}
    return "model_not_allowed"


def _rate(case: _Case) -> str | None:
    limits, counts = case.parts.limits, _limits(case)
    rate = _report(case, counts, limits.hit_all(counts, case.cost) if case.cost else limits.peek_all(counts))
    if rate.allowed:
        return None
    case.details = {"retry_after": rate.retry_after}
    return "rate_limit_exceeded"


def _spending(case: _Case) -> str | None:
    assert case.key is not None
    # Only what sends prompts costs money; a key of which nothing is left can still look and manage.
    if case.scope != Scope.CHAT_WRITE:
        return None
    reached = spending.reached(case.parts.quick, case.key)
    if reached is None:
        return None
    case.details = reached.details()
    return "spending_limit_reached"


Check = Callable[[_Case], str | None]

# A refusal before the rate check does not use up the customer's rate.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("https", _encrypted),
    ("form", _form),
    ("checksum", _checksum),
    ("known", _known),
    ("enabled", _enabled),
    ("expiry", _expiry),
    ("plan", _plan),
    ("address", _address),
    ("origin", _origin),
    ("scope", _scope),
    ("model", _model),
    ("rate", _rate),
    ("spending", _spending),
)
_CHECKS = tuple([check for _name, check in CHECKS])
_CHECKS_BEFORE_RATE = _CHECKS[: _CHECKS.index(_rate)]


def _workspace_limit(case: _Case) -> int:
    assert case.key is not None
    plan = case.parts.plans.plan_named(case.key.plan)
    return (case.key.requests_per_minute or plan.requests_per_minute) if plan.api_access else 0


def _limits(case: _Case) -> list[tuple[str, int]]:
    """The counts a call goes into: the key's own, if it has one, and the workspace's."""
    assert case.key is not None
    own = case.key.key_requests_per_minute
    of_workspace = (case.key.workspace_id, _workspace_limit(case))
    return [of_workspace] if own is None else [(case.key.key_id, own), of_workspace]


def _report(case: _Case, limits: Sequence[tuple[str, int]], states: Sequence[RateState]) -> RateState:
    """Tell the tighter limit, and the names of all of them: of those that refused the one that does so for longer, or
    else the one that has the least left."""
    if len(limits) == 1:
        case.limits, case.tightest, rate = (("workspace", limits[0][1]),), "workspace", states[0]
    else:
        case.limits = (("key", limits[0][1]), ("workspace", limits[1][1]))
        case.tightest, rate = min(
            zip(("key", "workspace"), states, strict=True),
            key=lambda one: (one[1].allowed, one[1].remaining if one[1].allowed else -one[1].reset_at),
        )
    case.rate = rate
    return rate


# One indexed read tells everything the checks ask, and sees every change committed before it began.
_FIND = Prepared(
    select(
        ApiKey.id,
        ApiKeySecret.id,
        ApiKeySecret.ends_at,
        Workspace.id,
        ApiKey.name,
        ApiKey.kind,
        ApiKey.environment,
        ApiKey.scopes,
        ApiKey.expires_at,
        ApiKey.disabled_at,
        Workspace.plan,
        Workspace.requests_per_minute,
        ApiKey.allowed_models,
        ApiKey.allowed_networks,
        ApiKey.allowed_origins,
        ApiKey.requests_per_minute,
        Workspace.slug,
        ApiKey.daily_limit_nano_usd,
        ApiKey.monthly_limit_nano_usd,
        ApiKey.allow_unknown_price,
        Workspace.daily_limit_nano_usd,
        Workspace.monthly_limit_nano_usd,
        Workspace.allow_unknown_price,
        ALL_AS_TEXT,
    )
    .join(ApiKey, ApiKey.id == ApiKeySecret.api_key_id)
    .join(Workspace, Workspace.id == ApiKey.workspace_id)
    .where(ApiKeySecret.digest == bindparam("digest", type_=ApiKeySecret.digest.type), ApiKey.deleted_at.is_(None))
)


def _find(tools: Parts, text: str) -> KeyFacts | None:
    row = tools.quick.one(_FIND, {"digest": tools.key_digests.digest(text)})
    return None if row is None else KeyFacts(*row)
