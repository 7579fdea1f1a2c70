"""What docs/webhooks.md says of events is so, and its samples check what the portal sends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from config import ROOT
from extensions import db
from models import WebhookEvent
from models.base import now
from services import audit, events, found_keys, keys, provider_keys, rotation, spending, webhook_sender, webhooks
from services.secret import Secret
from services.webhook_sender import Message
from services.workspaces import set_plan
from tests.people import Person

TEXT = (ROOT / "docs" / "webhooks.md").read_text()
# Told of by the looks of tests/services/test_notices.py.
BY_ITSELF = {
    "key.expiring",
    "key.expired",
    "key.rotation_due",
    "spending.threshold_reached",
    "rate_limit.reached",
    "provider_key.state_changed",
}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What is documented is the same for every database."""
    return one_database_url


def documented() -> dict[str, dict[str, Any]]:
    """The example of each kind of event."""
    sections = re.findall(r"^### `([a-z_.]+)`\n\n(.+)\n\n((?:    .*\n)+)", TEXT, re.MULTILINE)
    assert {kind: meaning for kind, meaning, _ in sections} == events.KINDS
    return {kind: json.loads(example) for kind, _, example in sections}


def shape(value: Any) -> Any:
    return {name: shape(item) for name, item in value.items()} if isinstance(value, dict) else None


def test_every_kind_of_event_is_documented_with_an_example() -> None:
    assert list(documented()) == list(events.KINDS)


def test_the_examples_have_the_fields_that_events_have(
    app: Flask, alice: Person, mint: Callable[..., keys.Minted]
) -> None:
    workspace, actor = alice.workspace, alice.actor
    webhooks.create(workspace, actor=actor, url="https://hooks.example/")
    minted, found = mint("Server"), mint("Found")
    key_id, soon = minted.key.id, now() + timedelta(hours=1)
    keys.change(workspace, key_id, actor=actor, name="New name", expires_at=now() + timedelta(days=9))
    rotation.rotate(workspace, key_id, actor=actor, until=soon)
    rotation.extend(workspace, key_id, soon, actor=actor)
    rotation.finish(workspace, key_id, actor=actor)
    keys.disable(workspace, key_id, actor=actor)
    keys.enable(workspace, key_id, actor=actor)
    keys.delete(workspace, key_id, actor=actor)
    found_keys.end(found.secret, "", address=None, client=None)
    audit.record(workspace.id, actor, "key:new_address", object_id=key_id, details={"address": "203.0.113.1"})
    set_plan(workspace, "enterprise", requests_per_minute=5000, actor=actor)
    limits: dict[str, Any] = {"daily_nano_usd": None, "monthly_nano_usd": 10**9, "allow_unknown_price": False}
    spending.set_limits(workspace, **limits, actor=actor)
    for _ in range(2):
        provider_keys.save(workspace, "openai", Secret("sk-" + "a" * 30), actor=actor, check=False)
    provider_keys.delete(workspace, "openai", actor=actor)
    for action, details in (
        ("member:add", {"role": "viewer"}),
        ("member:change_role", {"from": "viewer", "to": "admin"}),
        ("member:remove", {}),
    ):
        audit.record(workspace.id, actor, action, object_id="user_1", object_name="x@y.example", details=details)
    made = {event.kind: event.data for event in db.session.scalars(select(WebhookEvent))}
    examples = documented()
    assert set(made) == set(examples) - BY_ITSELF
    for kind, data in made.items():
        assert shape(data) == shape(examples[kind]), kind


def test_the_samples_take_what_the_portal_signs_and_nothing_else(tmp_path: Path) -> None:
    python, node = (re.search(rf"^```{name}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for name in ("python", "js"))
    assert python is not None
    assert node is not None
    secrets = [Secret("whsec_" + letter * 43 + "=") for letter in ("A", "b")]
    body = json.dumps({"type": "key.disabled", "data": {"name": "Ünlü"}}, ensure_ascii=False)
    headers = webhook_sender._headers(Message("whe_1", "", "evt_1", body.encode(), secrets), now())
    for secret in secrets:
        assert handled(python[1], secret.reveal(), headers, body) == 204
        assert verified(node[1], tmp_path, secret.reveal(), headers, body)
    late = webhook_sender._headers(Message("whe_1", "", "evt_1", body.encode(), secrets), now() - timedelta(minutes=6))
    for asked in (
        ("whsec_" + "C" * 43 + "=", headers, body),
        (secrets[0].reveal(), headers, body + " "),
        (secrets[0].reveal(), {**headers, "webhook-id": "evt_2"}, body),
        (secrets[0].reveal(), late, body),
    ):
        assert handled(python[1], *asked) == 400
        assert not verified(node[1], tmp_path, *asked)


def handled(source: str, secret: str, headers: dict[str, str], body: str) -> int:
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEBHOOK_SECRET", secret)
        exec(source, names)
        return int(names["handle"](headers, body.encode()))


def verified(source: str, folder: Path, secret: str, headers: dict[str, str], body: str) -> bool:
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no Node.js here")
    asked = json.dumps([secret, headers, body])
    script = folder / "verify.js"
    script.write_text(f"{source}\nverify(...JSON.parse(require('fs').readFileSync(0, 'utf8')));\n")
    done = subprocess.run([program, str(script)], input=asked, text=True, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0 or "no signature fits" in done.stderr or "too old" in done.stderr, done.stderr
    return done.returncode == 0
