"""``GET /v1/openapi.json``. What the other tests are answered is held against it by ``tests/api_shapes.py``."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from blueprints.v1 import keys as keys_api
from blueprints.v1 import providers, verify, webhooks
from blueprints.v1.openapi.operations import MODELS, OPERATIONS
from blueprints.v1.openapi.schemas import SCHEMAS
from services import keys, webhook_deliveries, workspaces
from services import webhooks as webhooks_of
from services.errors import NotFound
from services.permissions import SCOPE_MEANINGS, Scope
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person, bearer

Document = dict[str, Any]
Mint = Callable[..., keys.Minted]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# No text that is made up is a provider's key, an address with a host that exists, or a chat; and these two need a key
# that is rotating, and a delivery that has ended.
NEEDS_MORE_THAN_THE_FORM = {
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/responses",
    "PUT /v1/providers/{name}",
    "POST /v1/webhooks",
    "POST /v1/keys/{key_id}/rotation/finish",
    "POST /v1/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver",
}
FEW = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
FIELDS = {
    "NewKey": keys_api.NEW_KEY,
    "KeyChanges": keys_api.CHANGES,
    "KeyRotation": ("overlap",),
    "KeyQuestion": verify.QUESTION,
    "NewProviderKey": providers.FIELDS,
    "NewWebhook": webhooks.NEW,
    "WebhookChanges": webhooks.CHANGES,
    "WebhookRotation": ("overlap",),
}


@pytest.fixture
def document(client: FlaskClient) -> Document:
    found: Document = client.get("/v1/openapi.json").get_json()
    return found


def operations(document: Document) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), f"/v1{path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_is_openapi_and_read_without_a_key_from_anywhere(client: FlaskClient) -> None:
    response = client.get("/v1/openapi.json", headers={"Origin": "https://editor.example"})
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert list(OpenAPIV31SpecValidator(response.get_json()).iter_errors()) == []


def test_it_describes_every_endpoint_and_no_other(app: Flask, document: Document) -> None:
    described = {f"{method} {path}" for method, path, _ in operations(document)}
    assert described == set(OPERATIONS)
    routes = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/v1/")]
    assert len(described) == sum(len(rule.methods - {"HEAD", "OPTIONS"}) for rule in routes if rule.methods) - 1


def test_each_operation_has_a_name_of_its_own(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_each_operation_tells_the_scope_that_it_needs(document: Document) -> None:
    told = {f"{method} {path}": operation["description"] for method, path, operation in operations(document)}
    assert told["GET /v1/keys"] == "Needs the scope `keys:read`."
    assert told["GET /v1/me"] == "Any key may ask."
    assert {scope for scope in SCOPE_MEANINGS if not any(f"`{scope}`" in text for text in told.values())} == set()


@pytest.mark.parametrize("name", FIELDS)
def test_a_body_may_hold_what_the_endpoint_reads_and_nothing_else(name: str) -> None:
    assert set(SCHEMAS[name]["properties"]) == set(FIELDS[name])
    assert SCHEMAS[name]["additionalProperties"] is False


def test_restrictions_are_described_as_they_are_read() -> None:
    for name in ("NewKey", "KeyChanges"):
        assert set(SCHEMAS[name]["properties"]["restrictions"]["properties"]) == set(keys_api.RESTRICTIONS)


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
def test_what_a_program_makes_up_from_the_description_is_answered_as_it_says(
    app: Flask, alice: Person, mint: Mint, connect: Callable[[str, str], None], provider: FakeProvider,
    mode: GenerationMode,
) -> None:  # fmt: skip
    """Requests that hold the description, and others, about things that exist, with keys that may do everything."""
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=100_000, actor=alice.actor)
    manager, simulated = (mint(one, environment=one, scopes=sorted(Scope)) for one in ("live", "test"))
    checks = [*CHECKS, *([negative_data_rejection] if mode is GenerationMode.NEGATIVE else [])]
    carried_out = set()

    def conforms(case: Case) -> None:
        key = simulated if case.operation.tags == [MODELS] else manager
        response = case.call_and_validate(headers=bearer(key.secret), checks=checks)
        if response.status_code < 300:
            carried_out.add(f"{case.method} /v1{case.operation.path}")

    api = schemathesis.openapi.from_wsgi("/v1/openapi.json", Apart(app))
    for operation in (found.ok() for found in api.get_all_operations()):
        connect("openai", provider.good_key)
        with made_places(alice, mint) as places:
            own = {one.name: places[one.name] for one in operation.path_parameters}
            cases = operation.as_strategy(generation_mode=mode, path_parameters=own or None)
            settings(FEW)(given(case=cases)(conforms))()
    if mode is GenerationMode.POSITIVE:
        assert set(OPERATIONS) - carried_out <= NEEDS_MORE_THAN_THE_FORM


@contextlib.contextmanager
def made_places(alice: Person, mint: Mint) -> Iterator[dict[str, str]]:
    """Give what can stand in a path: things of alice's that exist, new ones each time."""
    minted = webhooks_of.create(alice.workspace, actor=alice.actor, url="https://hooks.example/arka")
    endpoint_id = minted.endpoint.id
    yield {
        "key_id": mint(environment="live").key.id,
        "endpoint_id": endpoint_id,
        "delivery_id": webhook_deliveries.send_test(alice.workspace, endpoint_id).id,
        "name": "openai",
        "model_id": "gpt-4o",
    }
    with contextlib.suppress(NotFound):
        webhooks_of.delete(alice.workspace, endpoint_id, actor=alice.actor)


class Apart:
    """Answers each request in a context of its own, as a server would, and not in the test's."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return contextvars.Context().run(self._app, environ, start_response)
