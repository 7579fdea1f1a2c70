"""The checks of the gate run in one order, whatever else is wrong; only what passes the rate uses it up."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import ROOT
from extensions import db
from models import ApiKey
from models.base import now, transaction
from services import gate, keys
from services.key_format import KeyFormat
from services.parts import parts
from tests.people import Person

Mint = Callable[..., keys.Minted]

# The contract's list. HTTPS comes before it, because what came in the open is not even read.
ORDER = ["form", "checksum", "known", "enabled", "expiry", "plan", "address", "origin", "scope", "model", "rate"]
ORDER += ["spending"]
# Each way in which a call can fail, in the order of the checks, with the code of its refusal. Where two belong to the
# same check, the first is told.
FAULTS = {
    "plain http": ("https", "https_required"),
    "both headers": ("form", "ambiguous_credentials"),
    "bad form": ("form", "authentication_required"),
    "wrong checksum": ("checksum", "invalid_api_key"),
    "unknown": ("known", "invalid_api_key"),
    "disabled": ("enabled", "disabled_api_key"),
    "expired": ("expiry", "expired_api_key"),
    "no plan": ("plan", "plan_required"),
    "elsewhere": ("address", "ip_not_allowed"),
    "browser": ("origin", "secret_key_in_browser"),
    "other origin": ("origin", "origin_not_allowed"),
    "no scope": ("scope", "insufficient_scope"),
    "other model": ("model", "model_not_allowed"),
    "over the rate": ("rate", "rate_limit_exceeded"),
    "nothing left": ("spending", "spending_limit_reached"),
}
MOST = 900_000
# One of the two: a secret key is for no browser, a publishable one for some origins.
KINDS = {"secret": "other origin", "publishable": "browser"}
BAD_FORMS = ["", "hello", "arka_sk_short", "Bearer", "arka_xx_" + "0" * 32]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    # Hundreds of refusals come from one address.
    return environment | {"ARKA_AUTH_FAILURES_PER_MINUTE": str(MOST)}


def spoil(person: Person, key_id: str, kind: str, faults: set[str]) -> None:
    """Bring the key and its workspace into the state that has these faults and no other."""
    with transaction():
        key, workspace = db.session.get_one(ApiKey, key_id), person.workspace
        key.kind = kind
        key.disabled_at = now() if "disabled" in faults else None
        key.expires_at = now() - timedelta(seconds=1) if "expired" in faults else None
        key.allowed_networks = ["198.51.100.0/24"] if "elsewhere" in faults else ["203.0.113.0/24"]
        key.allowed_origins = ["https://shop.example"] if kind == "publishable" else []
        key.scopes = ["models:read"] if "no scope" in faults else ["chat:write"]
        key.allowed_models = ["gpt-4o-mini"] if "other model" in faults else ["gpt-4o"]
        key.requests_per_minute = 1 if "over the rate" in faults else None
        # What a test key does costs nothing, so no limit holds it.
        key.environment = "live" if "nothing left" in faults else "test"
        key.daily_limit_nano_usd = 0 if "nothing left" in faults else None
        workspace.plan = "starter" if "no plan" in faults else "enterprise"
        workspace.requests_per_minute = MOST
    if "over the rate" in faults:
        parts().limits.hit(key_id, 1)


def call_with(client: FlaskClient, secret: str, kind: str, faults: set[str], bad_form: str) -> Any:
    if "bad form" in faults:
        secret = bad_form
    elif "wrong checksum" in faults:
        secret = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    headers = {"Authorization": f"Bearer {secret}"}
    if "both headers" in faults:
        headers["X-API-Key"] = secret
    if "browser" in faults or kind == "publishable":
        headers["Origin"] = "https://evil.example" if "other origin" in faults else "https://shop.example"
    return client.post(
        "/v1/chat/completions",
        headers=headers,
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]},
        base_url="http://portal.example" if "plain http" in faults else "https://portal.example",
        environ_base={"REMOTE_ADDR": "203.0.113.9"},
    )


@st.composite
def some_faults(draw: st.DrawFn) -> set[str]:
    """A first fault, each as likely, and any of those that come after it; or none."""
    names = list(FAULTS)
    first = draw(st.integers(0, len(names)))
    return {*names[first : first + 1], *draw(st.sets(st.sampled_from(names[first:])) if names[first:] else st.just(()))}


def check(app: Flask, mint: Mint, person: Person, faults: set[str], kind: str, bad_form: str) -> None:
    """Make a call with these faults: the answer is that of the first, and only what passes the rate uses it up."""
    with transaction():
        # Without the plan of an earlier call no key would be made.
        person.workspace.plan = "enterprise"
    minted = mint(f"key {now().timestamp()}")
    secret = minted.secret.reveal()
    spoil(person, minted.key.id, kind, faults)
    if "unknown" in faults:
        secret = KeyFormat("arka").generate(kind, "test").reveal()
    limits = parts().limits
    before = limits.peek(person.workspace_id, MOST).remaining
    response = call_with(app.test_client(), secret, kind, faults, bad_form)
    used = before - limits.peek(person.workspace_id, MOST).remaining
    found = next((code for name, (_, code) in FAULTS.items() if name in faults), None)
    told = (response.get_json().get("error") or {}).get("code")
    past_the_rate = found in (None, "spending_limit_reached")
    assert (told, used) == (found, 1 if past_the_rate else 0), (sorted(faults), kind)
    assert (response.status_code == 200) == (found is None)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=some_faults(), kind=st.sampled_from(sorted(KINDS)), bad_form=st.sampled_from(BAD_FORMS))
def test_the_earliest_check_that_fails_gives_the_answer(
    app: Flask, mint: Mint, alice: Person, faults: set[str], kind: str, bad_form: str
) -> None:
    check(app, mint, alice, faults - {KINDS[kind]}, kind, bad_form)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_of_any_two_faults_the_earlier_is_told(app: Flask, mint: Mint, alice: Person, kind: str) -> None:
    possible = [name for name in FAULTS if name != KINDS[kind]]
    for faults in [(), *itertools.combinations(possible, 1), *itertools.combinations(possible, 2)]:
        check(app, mint, alice, set(faults), kind, "hello")


def test_the_list_is_one_in_the_code_the_contract_and_the_documents() -> None:
    assert [name for name, _ in gate.CHECKS] == ["https", *ORDER]
    # Every check of the gate, and every code of a refusal, can be provoked above and in this order.
    assert list(dict.fromkeys(check for check, _ in FAULTS.values())) == ["https", *ORDER]
    assert {code for _, code in FAULTS.values()} == set(gate.REASONS)
    written = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| ([a-z, ]+) \| 4\d\d \| `([a-z_]+)` \|", written.split("## The request")[0], re.MULTILINE)
    documented = [(check, code) for checks, code in rows for check in checks.split(", ")]
    assert [row for row in documented if row[0] in ["https", *ORDER]] == list(dict.fromkeys(FAULTS.values()))
