"""The playground: a person asks a model through the gateway, without a key but metered and limited like one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from extensions import db
from models import Workspace
from models.base import transaction
from services import idempotency, provider_keys
from services.actor import Actor
from services.errors import LimiterAway, PortalError, ProviderFailed, RateLimited
from services.gate import KeyFacts
from services.gateway import relay
from services.gateway.endpoints import ENDPOINTS
from services.gateway.simulator import MODELS
from services.metering import Call, Meter
from services.parts import parts
from services.permissions import Role
from services.rate_limits import StoreUnavailable

ENDPOINT = "chat/completions"
# What the simulator answers a workspace without API access, whose plan has no figure.
SIMULATED_PER_MINUTE = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and the call as it was metered."""

    text: str
    call: Call
    simulated: bool


def may_ask(role: Role) -> bool:
    return role.includes(Role.DEVELOPER)


def known_models(workspace: Workspace) -> list[str]:
    """Return models that can be asked for here; others may be typed. Asks no provider."""
    connected = {key.provider for key in provider_keys.of_workspace(workspace)}
    simulated = is_simulated(workspace)
    return [model for model, provider in MODELS.items() if simulated or provider in connected]


def is_simulated(workspace: Workspace) -> bool:
    """Tell whether the simulator answers here, because the plan has no API access."""
    return not parts().plans.has_api_access(workspace)


def request_body(model: str, system: str, message: str) -> dict[str, Any]:
    """Return the request that is sent, in the form in which a program would send it."""
    messages = [{"role": "system", "content": system}] if system else []
    return {"model": model, "messages": [*messages, {"role": "user", "content": message}]}


def ask(workspace: Workspace, body: dict[str, Any], *, actor: Actor, request_id: str, number: str | None) -> Answer:
    """Ask a model for somebody. ``number`` names the request: a second one with the same number raises AlreadyDone.

    Raises whatever a key would be answered: RateLimited, InvalidRequest, ProviderFailed, SpendingLimitReached ...
    """
    with transaction():
        idempotency.refuse_repetition(workspace, number)
        idempotency.remember(workspace, number, request_id)
    call = Call(
        request_id=request_id,
        key=_facts(workspace, actor),
        endpoint=ENDPOINT,
        address=actor.address or "",
        client=actor.client,
        user_id=actor.user_id,
    )
    # The provider may take its time; others need the connection meanwhile.
    db.session.rollback()
    meter = Meter()
    try:
        _count(call)
        reply = relay.answer(call, ENDPOINTS[ENDPOINT], orjson.dumps(body))
        assert isinstance(reply.body, bytes)
        text = _text_of(reply.body)
    except PortalError as error:
        meter.record(call, error.status, error.code, error.details)
        raise
    except Exception:
        # What nobody foresaw is a failed call all the same, and holds no money any more.
        meter.record(call, PortalError.status, PortalError.code)
        raise
    meter.record(call, 200, None)
    return Answer(text, call, simulated=call.key.environment == "test")


def _facts(workspace: Workspace, actor: Actor) -> KeyFacts:
    """Say who calls in the words of the gateway: a key that is none, and test where the simulator answers."""
    return KeyFacts(
        key_id="",
        secret_id="",
        secret_ends_at=None,
        workspace_id=workspace.id,
        name=actor.name,
        kind="secret",
        environment="test" if is_simulated(workspace) else "live",
        scopes=[],
        expires_at=None,
        disabled_at=None,
        plan=workspace.plan,
        requests_per_minute=workspace.requests_per_minute,
        allowed_models=[],
        allowed_networks=[],
        allowed_origins=[],
        key_requests_per_minute=None,
        workspace_slug=workspace.slug,
        daily_limit_nano_usd=None,
        monthly_limit_nano_usd=None,
        allow_unknown_price=False,
        workspace_daily_limit_nano_usd=workspace.daily_limit_nano_usd,
        workspace_monthly_limit_nano_usd=workspace.monthly_limit_nano_usd,
        workspace_allow_unknown_price=workspace.allow_unknown_price,
        provider_keys=provider_keys.all_as_text(workspace.id),
    )


def _count(call: Call) -> None:
    """Count the call against the limit that the workspace's keys share. Raises RateLimited, LimiterAway."""
    of_plan = call.key.requests_per_minute or parts().plans.plan_named(call.key.plan).requests_per_minute
    name = f"playground:{call.key.workspace_id}" if call.key.environment == "test" else call.key.workspace_id
    try:
        state = parts().limits.hit(name, of_plan or SIMULATED_PER_MINUTE)
    except StoreUnavailable as error:
        raise LimiterAway from error
    if not state.allowed:
        raise RateLimited(state.retry_after)


def _text_of(content: bytes) -> str:
    """Return what the model said. Raises ProviderFailed when that cannot be found."""
    try:
        message = orjson.loads(content)["choices"][0]["message"]
        return str(message.get("content") or message.get("refusal") or "")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ProviderFailed("The provider's answer holds no message.") from error
