"""API keys: made with the plan, shown once, ended for good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models import ApiKey, ApiKeySecret, AuditEvent
from models.base import now, transaction
from services import keys, workspaces
from services.errors import AlreadyDone, InvalidInput, NotFound, PlanRequired
from services.key_format import KeyFormat
from services.permissions import PRESETS, PUBLISHABLE_SCOPES, Role, Scope, may_create_keys, may_manage_key
from tests.calls import Owner, call, keep
from tests.people import Person

Mint = Callable[..., keys.Minted]


def test_a_key_without_scopes_or_preset_gets_full_access(mint: Mint) -> None:
    assert mint().key.scopes == sorted(Scope)
    assert mint(kind="publishable").key.scopes == sorted(PRESETS["read_only"].scopes)


def test_the_tables_hold_no_usable_secret(mint: Mint) -> None:
    secret = mint().secret.reveal()
    held = "".join(
        str([tuple(row) for row in db.session.execute(text(f'SELECT * FROM "{table}"'))])
        for table in db.metadata.tables
    )
    for part in (secret, secret[8:], secret[13:-6], secret[-12:]):
        assert part not in held


def test_the_mask_shows_prefix_first_four_and_last_five(mint: Mint) -> None:
    minted = mint(environment="live")
    secret = minted.secret.reveal()
    assert minted.key.mask == f"arka_sk_{secret[8:12]}...{secret[-5:]}"
    test = mint()
    assert str(test.key.mask).startswith("arka_sk_test_")


def test_without_the_plan_no_key_is_made(mint: Mint, alice: Person) -> None:
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    with pytest.raises(PlanRequired, match="Agency plan"):
        mint()
    assert db.session.query(ApiKey).count() == 0


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", {"name": " "}),
        ("name", {"name": "x" * 61}),
        ("name", {"name": "two\nlines"}),
        ("name", {"name": "a\0b"}),
        ("kind", {"kind": "private"}),
        ("environment", {"environment": "staging"}),
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["chat:read"]}),
        ("scopes", {"scopes": ["chat:write", "; DROP TABLE api_key"]}),
        ("scopes", {"kind": "publishable", "scopes": ["chat:write"]}),
        ("scopes", {"kind": "publishable", "scopes": ["billing:read"]}),
        ("preset", {"preset": "everything"}),
        ("expires_at", {"expires_at": now() - timedelta(seconds=1)}),
    ],
)
def test_what_cannot_be_taken_is_named_and_nothing_is_made(
    alice: Person, field: str, values: dict[str, object]
) -> None:
    usual: dict[str, object] = {"name": "n", "kind": "secret", "environment": "test"}
    with pytest.raises(InvalidInput) as caught:
        keys.mint(alice.workspace, actor=alice.actor, **{**usual, **values})  # type: ignore[arg-type]
    assert list(caught.value.fields) == [field]
    assert db.session.query(ApiKey).count() == 0


def test_a_name_is_unique_among_living_keys_of_a_workspace(mint: Mint, alice: Person, charlie: Person) -> None:
    first = mint("server")
    with pytest.raises(InvalidInput, match="Another key has this name"):
        mint(" server ")
    mint("server", owner=charlie)
    keys.delete(alice.workspace, first.key.id, actor=alice.actor)
    mint("server")


def test_publishable_keys_never_write_and_never_see_billing() -> None:
    assert all(scope.endswith(":read") for scope in PUBLISHABLE_SCOPES)
    assert Scope.BILLING_READ not in PUBLISHABLE_SCOPES


def test_the_same_request_again_makes_no_second_key(alice: Person) -> None:
    def make() -> keys.Minted:
        return keys.mint(
            alice.workspace, actor=alice.actor, name="n", kind="secret", environment="test", one_time_number="42"
        )

    made = make()
    with pytest.raises(AlreadyDone) as caught:
        make()
    assert caught.value.object_id == made.key.id
    assert db.session.query(ApiKey).count() == 1


def test_a_deleted_key_keeps_its_record_and_loses_its_digest(mint: Mint, alice: Person) -> None:
    minted = mint()
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    assert db.session.query(ApiKeySecret).count() == 0
    record = keys.get_any(alice.workspace, minted.key.id)
    assert (record.status(), record.mask) == ("deleted", None)
    with pytest.raises(NotFound):
        keys.get(alice.workspace, minted.key.id)
    with pytest.raises(NotFound):
        keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    assert keys.living(alice.workspace) == []


def test_a_key_of_another_workspace_is_not_found(mint: Mint, charlie: Person) -> None:
    key_id = mint().key.id
    for act in (keys.get, keys.get_any):
        with pytest.raises(NotFound):
            act(charlie.workspace, key_id)
    with pytest.raises(NotFound):
        keys.delete(charlie.workspace, key_id, actor=charlie.actor)
    assert key_id in {key.id for key in db.session.query(ApiKey).filter_by(deleted_at=None)}


def test_making_and_deleting_are_in_the_audit_log(mint: Mint, alice: Person) -> None:
    minted = mint("server")
    keys.delete(alice.workspace, minted.key.id, actor=alice.actor)
    entries = db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).limit(2).all()
    assert [(e.action, e.object_id, e.object_name, e.actor_name) for e in reversed(entries)] == [
        ("key:create", minted.key.id, "server", alice.email),
        ("key:delete", minted.key.id, "server", alice.email),
    ]
    assert KeyFormat("arka").pattern.split("_")[0] == "arka"
    assert minted.secret.reveal() not in str([entry.details for entry in entries])


def test_status_follows_the_clock(mint: Mint) -> None:
    key = mint(expires_at=now() + timedelta(hours=1)).key
    assert key.status() == "active"
    assert key.status(now() + timedelta(hours=1)) == "expired"


def test_developers_manage_their_own_keys_only(mint: Mint, alice: Person, charlie: Person) -> None:
    key = mint().key
    may = {role: may_manage_key(role, charlie.user_id, key) for role in Role}
    assert may == {Role.OWNER: True, Role.ADMIN: True, Role.DEVELOPER: False, Role.VIEWER: False}
    assert may_manage_key(Role.DEVELOPER, alice.user_id, key)
    assert not may_manage_key(Role.VIEWER, alice.user_id, key)
    assert [role.value for role in Role if may_create_keys(role)] == ["owner", "admin", "developer"]


def test_days_are_those_of_utc_whatever_the_zone_of_the_session(app: Flask, mint: Mint, alice: Person) -> None:
    minted = mint()
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
    for seconds in (-1, 1):
        at = midnight + timedelta(seconds=seconds)
        with transaction():
            keep([call(Owner(alice.workspace_id, minted.key.id, minted.key.secrets[0].id), at)])
    if db.engine.dialect.name == "postgresql":
        db.session.execute(text("SET TIME ZONE 'Asia/Tokyo'"))
    assert keys.requests_in_days(alice.workspace)[minted.key.id] == [0, 0, 0, 0, 0, 1, 1]


def test_attempts_with_an_ended_secret_are_no_calls_of_the_day(app: Flask, mint: Mint, alice: Person) -> None:
    used, other = mint(), mint()
    owner = Owner(alice.workspace_id, used.key.id, used.key.secrets[0].id)
    attempts = [call(owner, now(), status=403, code="invalid_api_key") for _ in range(2)]
    refused = call(owner, now(), status=403, code="insufficient_scope")
    with transaction():
        keep([call(owner, now()), refused, *attempts])
    assert keys.requests_in_days(alice.workspace, 3) == {used.key.id: [0, 0, 2]}
    assert keys.requests_in_days(alice.workspace, 3, [other.key.id]) == {}
