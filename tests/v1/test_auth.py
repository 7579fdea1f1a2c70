"""Authenticating to /v1: the table of the contract's section 3, situation by situation."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from extensions import db
from models import ApiKey, UsageRecord
from models.base import now, transaction
from services import gate, keys, sessions, workspaces
from services.errors import DatabaseAway
from services.key_format import KeyFormat
from services.metering import Meter
from tests.people import PASSWORD, Person, bearer

Mint = Callable[..., keys.Minted]
MODELS = "/v1/models"


def error_of(response: TestResponse) -> dict[str, Any]:
    """Check the one shape of an error and return its inner object."""
    assert response.content_type == "application/json"
    body = response.get_json()
    assert set(body) == {"success", "error"}
    assert body["success"] is False
    error: dict[str, Any] = body["error"]
    assert set(error) == {"type", "code", "message", "param", "retry_after", "details", "request_id"}
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert response.headers["Cache-Control"] == "no-store"
    return error


def refused(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    if status in (401, 403):
        assert response.headers["WWW-Authenticate"].startswith("Bearer realm=")
    return error


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_good_key_is_let_in_by_either_header(client: FlaskClient, mint: Mint, header: str) -> None:
    secret = mint().secret.reveal()
    value = f"Bearer {secret}" if header == "Authorization" else secret
    response = client.get(MODELS, headers={header: value})
    assert response.status_code == 200
    assert response.headers["X-RateLimit-Limit"] == "1000"
    assert response.headers["X-RateLimit-Remaining"] == "999"
    assert response.headers["RateLimit"].startswith('"workspace";r=999;t=')


def test_no_cookie_is_read_set_or_told_of(app: Flask, client: FlaskClient, mint: Mint, alice: Person) -> None:
    page = client.get("/sign-in")
    assert "Cookie" in page.headers["Vary"]
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    for headers in ({}, {"Cookie": cookie}, bearer(mint().secret), bearer(mint().secret) | {"Cookie": cookie}):
        response = app.test_client().get(MODELS, headers=headers)
        assert "Cookie" not in response.headers.get("Vary", "")
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YWxhZGRpbjpvcGVuc2VzYW1l"},
        {"Authorization": "Bearer hello"},
        {"Authorization": "Bearer sk-proj-1234567890"},
        {"Authorization": "Bearer arka_sk_short"},
        {"Authorization": "arka_sk_" + "a" * 32},
        {"X-API-Key": ""},
        {"X-API-Key": "' OR 1=1 --"},
        {"Authorization": "Bearer ' UNION SELECT * FROM api_key --"},
    ],
)
def test_no_credentials_or_none_of_ours_is_401(client: FlaskClient, headers: dict[str, str]) -> None:
    error = refused(client.get(MODELS, headers=headers), 401, "authentication_required")
    assert error["type"] == "authentication_error"


def test_a_key_in_the_query_is_not_looked_at(client: FlaskClient, mint: Mint) -> None:
    refused(client.get(f"{MODELS}?api_key={mint().secret.reveal()}"), 401, "authentication_required")


def test_both_headers_together_are_400(client: FlaskClient, mint: Mint) -> None:
    secret = mint().secret
    response = client.get(MODELS, headers={**bearer(secret), "X-API-Key": secret.reveal()})
    refused(response, 400, "ambiguous_credentials")


def test_unknown_deleted_and_misspelt_keys_say_the_same(client: FlaskClient, mint: Mint, alice: Person) -> None:
    deleted = mint()
    keys.delete(alice.workspace, deleted.key.id, actor=alice.actor)
    unknown = KeyFormat("arka").generate("secret", "test").reveal()
    misspelt = unknown[:-1] + ("a" if unknown[-1] != "a" else "b")
    said = []
    for key in (deleted.secret.reveal(), unknown, misspelt):
        error = refused(client.get(MODELS, headers={"Authorization": f"Bearer {key}"}), 403, "invalid_api_key")
        error.pop("request_id")
        said.append(error)
    assert said[0] == said[1] == said[2]


def test_an_expired_key_is_told_when(client: FlaskClient, mint: Mint) -> None:
    minted = mint(expires_at=now() + timedelta(hours=1))
    with time_machine.travel(now() + timedelta(hours=1, seconds=1), tick=False):
        error = refused(client.get(MODELS, headers=bearer(minted.secret)), 403, "expired_api_key")
    assert error["message"] == "API key has expired"
    assert error["details"]["expired_at"].endswith("Z")


def test_a_disabled_key_is_refused(client: FlaskClient, mint: Mint) -> None:
    minted = mint()
    with transaction():
        db.session.get_one(ApiKey, minted.key.id).disabled_at = now()
    refused(client.get(MODELS, headers=bearer(minted.secret)), 403, "disabled_api_key")


def test_a_downgrade_freezes_keys_and_an_upgrade_revives_them(client: FlaskClient, mint: Mint, alice: Person) -> None:
    secret = mint().secret
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    response = client.get(MODELS, headers=bearer(secret))
    refused(response, 403, "plan_required")
    assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Remaining"]) == ("0", "0")
    assert int(response.headers["X-RateLimit-Reset"]) > time.time()
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=None, actor=alice.actor)
    assert client.get(MODELS, headers=bearer(secret)).status_code == 200


def test_a_missing_scope_is_named(client: FlaskClient, mint: Mint) -> None:
    secret = mint(scopes=["usage:read"]).secret
    response = client.get(MODELS, headers=bearer(secret))
    error = refused(response, 403, "insufficient_scope")
    assert error["message"] == "Scope 'models:read' is required for this endpoint"
    assert error["details"] == {"required": "models:read", "granted": ["usage:read"]}
    assert response.headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="models:read"')


@pytest.mark.parametrize("header", [{"Origin": "https://shop.example"}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_secret_key_sent_by_a_browser_is_refused_and_told_why(
    client: FlaskClient, mint: Mint, header: dict[str, str]
) -> None:
    response = client.get(MODELS, headers={**bearer(mint().secret), **header})
    error = refused(response, 403, "secret_key_in_browser")
    assert "publishable key" in error["message"]
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


def test_node_s_fetch_is_no_browser(client: FlaskClient, mint: Mint) -> None:
    headers = {**bearer(mint().secret), "Sec-Fetch-Mode": "cors"}
    assert client.get(MODELS, headers=headers).status_code == 200


@pytest.mark.parametrize("address", ["203.0.113.7", "10.0.0.1", "2001:db8::1"])
def test_plain_http_from_elsewhere_is_refused(client: FlaskClient, mint: Mint, address: str) -> None:
    response = client.get(MODELS, headers=bearer(mint().secret), environ_base={"REMOTE_ADDR": address})
    refused(response, 403, "https_required")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_plain_http_on_loopback_is_fine(client: FlaskClient, mint: Mint, address: str) -> None:
    response = client.get(MODELS, headers=bearer(mint().secret), environ_base={"REMOTE_ADDR": address})
    assert response.status_code == 200


def test_https_from_elsewhere_is_fine(client: FlaskClient, mint: Mint) -> None:
    response = client.get(
        MODELS,
        headers=bearer(mint().secret),
        base_url="https://portal.example",
        environ_base={"REMOTE_ADDR": "203.0.113.7"},
    )
    assert response.status_code == 200


def test_a_header_a_stranger_can_set_does_not_make_it_https(client: FlaskClient, mint: Mint) -> None:
    response = client.get(
        MODELS,
        headers={**bearer(mint().secret), "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"},
        environ_base={"REMOTE_ADDR": "203.0.113.7"},
    )
    refused(response, 403, "https_required")


def test_the_login_session_gives_no_access_to_v1(client: FlaskClient, alice: Person) -> None:
    page = client.get("/sign-in").get_data(as_text=True)
    token = page.split('name="csrf_token"')[1].split('value="')[1].split('"')[0]
    form = {"csrf_token": token, "email": alice.email, "password": PASSWORD}
    assert client.post("/sign-in", data=form).status_code == 303
    assert client.get("/overview").status_code == 200
    refused(client.get(MODELS), 401, "authentication_required")


def test_a_key_gives_no_access_to_the_pages(client: FlaskClient, mint: Mint) -> None:
    assert client.get("/keys", headers=bearer(mint().secret)).status_code == 303


# ---- the rate


def test_the_rate_is_refused_with_the_wait(client: FlaskClient, mint: Mint, alice: Person) -> None:
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=3, actor=alice.actor)
    secret = mint().secret
    remaining = [client.get(MODELS, headers=bearer(secret)).headers["X-RateLimit-Remaining"] for _ in range(3)]
    assert remaining == ["2", "1", "0"]
    response = client.get(MODELS, headers=bearer(secret))
    error = refused(response, 429, "rate_limit_exceeded")
    assert error["type"] == "rate_limit_error"
    wait = int(response.headers["Retry-After"])
    assert 1 <= wait <= 60
    assert error["retry_after"] == wait
    assert error["message"] == f"Rate limit exceeded. Please retry after {wait} seconds."
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert abs(int(response.headers["X-RateLimit-Reset"]) - (now().timestamp() + wait)) < 2


def test_keys_of_a_workspace_share_its_limit_and_no_other_s(
    client: FlaskClient, mint: Mint, alice: Person, charlie: Person
) -> None:
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=2, actor=alice.actor)
    first, second, other = mint().secret, mint().secret, mint(owner=charlie).secret
    assert client.get(MODELS, headers=bearer(first)).status_code == 200
    assert client.get(MODELS, headers=bearer(second)).headers["X-RateLimit-Remaining"] == "0"
    assert client.get(MODELS, headers=bearer(first)).status_code == 429
    assert client.get(MODELS, headers=bearer(other)).status_code == 200


def test_a_limit_that_is_changed_in_the_middle_gives_nobody_a_new_budget(
    client: FlaskClient, mint: Mint, alice: Person
) -> None:
    secret = mint().secret

    def statuses_under(limit: int) -> list[int]:
        workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=limit, actor=alice.actor)
        return [client.get(MODELS, headers=bearer(secret)).status_code for _ in range(3)]

    assert statuses_under(3) == [200, 200, 200]
    assert statuses_under(2) == [429, 429, 429]
    assert statuses_under(4) == [200, 429, 429]


def test_a_refusal_before_the_rate_check_costs_nothing_and_still_tells_the_limit(
    client: FlaskClient, mint: Mint, alice: Person
) -> None:
    secret = mint(scopes=["usage:read"]).secret
    for _ in range(5):
        response = client.get(MODELS, headers=bearer(secret))
        assert response.headers["X-RateLimit-Remaining"] == "1000"
        assert "Retry-After" not in response.headers


def test_rate_headers_are_on_errors_after_the_check_too(client: FlaskClient, mint: Mint) -> None:
    response = client.get(f"{MODELS}/no-such-model", headers=bearer(mint().secret))
    assert response.status_code == 404
    assert response.headers["X-RateLimit-Remaining"] == "999"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": b"{"}, 400),
        ({"data": b"{}", "environ_overrides": {"CONTENT_LENGTH": "99999999999"}}, 413),
        ({"json": {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}}, 400),
    ],
)
def test_rate_headers_are_on_every_error_of_a_body(
    client: FlaskClient, mint: Mint, sent: dict[str, Any], status: int
) -> None:
    response = client.post("/v1/chat/completions", headers=bearer(mint(environment="live").secret), **sent)
    assert (response.status_code, response.headers["X-RateLimit-Remaining"]) == (status, "999")


def test_rate_headers_are_on_a_503_for_a_row_of_usage_that_could_not_be_kept(
    client: FlaskClient, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = mint().secret

    def away(*_args: object, **_more: object) -> None:
        raise DatabaseAway

    monkeypatch.setattr(Meter, "record", away)
    response = client.get(MODELS, headers=bearer(secret))
    assert (response.status_code, response.headers["X-RateLimit-Remaining"]) == (503, "999")


def test_repeated_failures_of_one_network_are_slowed_down_whichever_of_its_addresses_they_come_from(
    environment: dict[str, str], request: Any
) -> None:
    """A customer of an IPv6 network has 2**64 addresses."""
    environment["ARKA_AUTH_FAILURES_PER_MINUTE"] = "5"
    client = request.getfixturevalue("app").test_client()

    def status_from(address: str) -> int:
        return client.get(MODELS, base_url="https://portal.example", environ_base={"REMOTE_ADDR": address}).status_code

    assert [status_from(f"2001:db8:1:2::{number}") for number in range(7)] == [401] * 5 + [429] * 2
    assert status_from("2001:db8:1:3::1") == 401


def test_repeated_failures_of_one_address_are_slowed_down(environment: dict[str, str], request: Any) -> None:
    environment["ARKA_AUTH_FAILURES_PER_MINUTE"] = "5"
    app: Flask = request.getfixturevalue("app")
    client = app.test_client()
    good = request.getfixturevalue("mint")().secret
    statuses = [client.get(MODELS).status_code for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    error = refused(client.get(MODELS), 429, "rate_limit_exceeded")
    assert error["retry_after"] >= 1
    # A good key from the same address still works, and another address starts afresh.
    assert client.get(MODELS, headers=bearer(good)).status_code == 200
    assert client.get(MODELS, environ_base={"REMOTE_ADDR": "127.0.0.2"}).status_code == 401


# ---- whatever a client can send


@pytest.fixture
def quiet_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a property test fail to authenticate as often as it likes."""
    from services import parts as wiring

    true_parts = wiring.parts

    def generous() -> Any:
        import dataclasses

        return dataclasses.replace(true_parts(), auth_failures_per_minute=1_000_000)

    monkeypatch.setattr(gate, "parts", generous)


@pytest.mark.usefixtures("quiet_limits")
def test_any_bytes_as_credentials_get_400_401_or_403(client: FlaskClient, mint: Mint) -> None:
    key = mint().secret.reveal()
    words = st.sampled_from(
        [b"Bearer ", b"bearer\t", b"Basic ", key.encode(), b"arka_sk_", b"\xff\xfe", b"%00", b",", b" "]
    )
    values = st.one_of(st.binary(max_size=200), st.lists(words, max_size=5).map(b"".join))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(values, st.sampled_from(["HTTP_AUTHORIZATION", "HTTP_X_API_KEY"]))
    def check(value: bytes, header: str) -> None:
        text = value.decode("latin-1")
        response = client.get(MODELS, environ_overrides={header: text})
        if key in text and response.status_code == 200:
            return
        assert response.status_code in (400, 401, 403)
        assert error_of(response)["code"] in ("authentication_required", "ambiguous_credentials", "invalid_api_key")

    check()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/", 404, "not_found"),
        ("GET", "/v1//models", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/models/%00", 400, "invalid_request"),
        ("GET", "/v1/models?x=%00", 400, "invalid_request"),
    ],
)
def test_the_framework_s_refusals_have_the_same_shape(
    client: FlaskClient, method: str, path: str, status: int, code: str
) -> None:
    response = client.open(path, method=method)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    if status == 405:
        assert response.headers["Allow"]


def test_an_unforeseen_failure_is_500_in_the_same_shape_and_tells_nothing(
    app: Flask, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.gateway import catalogue

    def fail(_key: object) -> None:
        raise RuntimeError("canary")

    secret = mint().secret
    monkeypatch.setattr(catalogue, "models", fail)
    app.testing = False
    response = app.test_client().get(MODELS, headers=bearer(secret))
    assert (response.status_code, response.headers["X-RateLimit-Remaining"]) == (500, "999")
    assert error_of(response)["code"] == "internal_error"
    assert "canary" not in response.get_data(as_text=True)
    row = db.session.query(UsageRecord).one()
    assert (row.status, row.code) == (500, "internal_error")


# ---- the portal's own trouble


def test_rate_headers_are_on_a_503_for_limits_of_spending_that_could_not_be_read(
    client: FlaskClient, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.quick import DatabaseUnavailable
    from services import spending

    secret = mint(environment="live").secret

    def away(*_args: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(spending, "reached", away)
    response = client.post("/v1/chat/completions", headers=bearer(secret), json={})
    assert (response.status_code, error_of(response)["code"]) == (503, "service_unavailable")
    assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Remaining"]) == ("1000", "999")
    assert int(response.headers["Retry-After"]) >= 1


def test_without_its_database_the_answer_is_503_and_never_401(
    app: Flask, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.quick import DatabaseUnavailable, Quick

    secret = mint().secret

    def away(*_args: object, **_more: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(Quick, "_run", away)
    response = app.test_client().get(MODELS, headers=bearer(secret))
    assert (response.status_code, error_of(response)["code"]) == (503, "service_unavailable")
    assert int(response.headers["Retry-After"]) >= 1


def test_a_real_postgresql_outage_is_503_and_heals(client: FlaskClient, mint: Mint, request: Any, app: Flask) -> None:
    if app.config["SQLALCHEMY_DATABASE_URI"].startswith("sqlite"):
        return
    postgres = request.getfixturevalue("postgres")
    secret = mint().secret
    assert client.get(MODELS, headers=bearer(secret)).status_code == 200
    postgres.stop()
    try:
        response = client.get(MODELS, headers=bearer(secret))
        assert (response.status_code, error_of(response)["code"]) == (503, "service_unavailable")
    finally:
        postgres.start()
    assert client.get(MODELS, headers=bearer(secret)).status_code == 200


def test_a_signed_in_page_without_the_database_is_a_503_with_its_headers(
    client: FlaskClient, alice: Person, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    page = client.get("/sign-in").get_data(as_text=True)
    token = page.split('name="csrf_token"')[1].split('value="')[1].split('"')[0]
    client.post("/sign-in", data={"csrf_token": token, "email": alice.email, "password": PASSWORD})

    def away(*_args: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("away"))

    monkeypatch.setattr(sessions, "find", away)
    for path in ("/overview", "/nothing-here"):
        response = client.get(path)
        assert response.status_code == (503 if path == "/overview" else 404)
        assert response.headers["X-Request-Id"]
        assert response.headers["Content-Security-Policy"]
        assert "traceback" not in response.get_data(as_text=True).lower()


def test_without_the_limiter_s_store_the_answer_is_503(environment: dict[str, str], request: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        environment["ARKA_RATELIMIT_STORAGE_URI"] = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        app: Flask = request.getfixturevalue("app")
        secret = request.getfixturevalue("mint")().secret
        response = app.test_client().get(MODELS, headers=bearer(secret))
    assert (response.status_code, error_of(response)["code"]) == (503, "service_unavailable")
    assert int(response.headers["Retry-After"]) >= 1


# ---- usage


def test_every_call_that_names_a_key_is_a_row_of_usage(client: FlaskClient, mint: Mint) -> None:
    minted = mint(scopes=["models:read"])
    good = client.get(MODELS, headers={**bearer(minted.secret), "User-Agent": "tests/1"})
    bad = client.post("/v1/chat/completions", headers=bearer(minted.secret), json={})
    client.get(MODELS)
    rows = db.session.query(UsageRecord).order_by(UsageRecord.id).all()
    assert [(row.request_id, row.endpoint, row.status, row.code) for row in rows] == [
        (good.headers["X-Request-Id"], "models", 200, None),
        (bad.headers["X-Request-Id"], "chat/completions", 403, "insufficient_scope"),
    ]
    assert (rows[0].api_key_id, rows[0].address, rows[0].client) == (minted.key.id, "127.0.0.1", "tests/1")


def test_the_checks_run_in_the_documented_order() -> None:
    assert [name for name, _ in gate.CHECKS] == [
        "https", "form", "checksum", "known", "enabled", "expiry",
        "plan", "address", "origin", "scope", "model", "rate", "spending",
    ]  # fmt: skip


def test_the_first_failing_check_gives_the_answer(client: FlaskClient, mint: Mint, alice: Person) -> None:
    minted = mint(scopes=["usage:read"], expires_at=now() + timedelta(hours=1))
    headers = {**bearer(minted.secret), "Origin": "https://shop.example"}
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    with transaction():
        db.session.get_one(ApiKey, minted.key.id).disabled_at = now()
    later = now() + timedelta(hours=2)
    with time_machine.travel(later, tick=False):
        refused(client.get(MODELS, headers=headers), 403, "disabled_api_key")
        with transaction():
            db.session.get_one(ApiKey, minted.key.id).disabled_at = None
        refused(client.get(MODELS, headers=headers), 403, "expired_api_key")
    refused(client.get(MODELS, headers=headers), 403, "plan_required")
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=None, actor=alice.actor)
    refused(client.get(MODELS, headers=headers), 403, "secret_key_in_browser")
    refused(client.get(MODELS, headers=bearer(minted.secret)), 403, "insufficient_scope")
