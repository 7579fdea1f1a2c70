"""``POST /v1/keys/verify``: a service of the workspace asks whether a key it was shown is good."""

from __future__ import annotations

import ipaddress

from flask import Response, g, request

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.body import read_body
from blueprints.v1.objects import json_response, moment, rate_object
from services import key_history
from services.gate import REASONS, KeyFacts, Presented, Verdict, judge
from services.json_input import Fields, read_object
from services.metering import Attempt, Call, Meter
from services.parts import parts
from services.permissions import Scope

QUESTION = ("key", "scope", "cost", "address", "origin")
ENDPOINT = "keys/verify"
MOST_COST = 1000


@bp.post("/keys/verify")
@bearer_required(Scope.KEYS_READ)
def verify_key() -> Response:
    fields = Fields(read_object(read_body()), QUESTION)
    key = fields.text("key", missing="Give the key to check")
    scope, origin = fields.text("scope"), fields.text("origin")
    address, cost = _address(fields), _cost(fields)
    fields.refuse_faults()
    # Without an address or origin, a key that is restricted to some is refused: nobody has looked.
    shown = Presented(
        authorization=None,
        x_api_key=key,
        address=address,
        encrypted=True,
        from_browser=origin is not None,
        origin=origin,
    )
    verdict = judge(shown, scope, cost=cost, of_workspace=current_call().key.workspace_id)
    if cost > 0:
        _record(verdict, address)
    return json_response(_answer(verdict))


def _answer(verdict: Verdict) -> dict[str, object]:
    key = verdict.key
    return {
        "valid": verdict.allowed,
        # A text that is no key at all is as unknown as a key of somebody else.
        "code": "invalid_api_key" if key is None else verdict.code,
        "key": None if key is None else _key(key),
        "scopes": [] if key is None else key.scopes,
        "ratelimit": None if verdict.rate is None else rate_object(verdict.rate),
    }


def _key(key: KeyFacts) -> dict[str, object]:
    return {
        "id": key.key_id,
        "object": "key",
        "name": key.name,
        "kind": key.kind,
        "environment": key.environment,
        "expires_at": moment(key.expires_at),
    }


def _record(verdict: Verdict, address: str) -> None:
    """Keep the call as a use of the key that was asked about, or an attempt after its end, beside the question."""
    request_id = key_history.asked_about(g.request_id)
    address, client = address or request.remote_addr or "", request.headers.get("User-Agent")
    meter = Meter()
    if verdict.key is not None:
        call = Call(request_id=request_id, key=verdict.key, endpoint=ENDPOINT, address=address, client=client)
        status = 200 if verdict.code is None else REASONS[verdict.code].status
        meter.record(call, status, verdict.code, verdict.details)
    elif verdict.text is not None:
        fingerprint = parts().fingerprint_digests.digest(verdict.text.reveal())
        asker = current_call().key
        meter.record_attempt(Attempt(fingerprint, asker.workspace_id, request_id, ENDPOINT, address, client))


def _address(fields: Fields) -> str:
    text = fields.text("address")
    if text is None:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        fields.fault("address", "Give the caller's address, like 203.0.113.7")
        return ""


def _cost(fields: Fields) -> int:
    cost = fields.number("cost")
    if cost is not None and not 0 <= cost <= MOST_COST:
        fields.fault("cost", f"Give a number from 0 to {MOST_COST:,}")
    return 1 if cost is None else cost
