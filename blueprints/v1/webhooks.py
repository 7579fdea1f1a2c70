"""``/v1/webhooks``: what the pages do with webhook endpoints, for programs. A signing secret is told once."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.body import read_body
from blueprints.v1.caller import current_actor, current_workspace
from blueprints.v1.idempotency import REPLAYED, one_time
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import asked_page, bad_cursor, cursor_after
from models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from services import webhook_deliveries, webhooks
from services.errors import AlreadyDone, NotFound, PermissionRefused
from services.json_input import Fields, read_object
from services.permissions import Scope
from services.webhooks import Minted

NEW = ("url", "description", "events")
CHANGES = (*NEW, "disabled")


@bp.get("/webhooks")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def list_webhooks() -> Response:
    limit, after = asked_page()
    try:
        found, more = webhooks.page(current_workspace(), limit=limit, after=after)
    except NotFound:
        raise bad_cursor() from None
    return _list([endpoint_object(endpoint) for endpoint in found], more)


@bp.post("/webhooks")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def create_webhook() -> Response:
    _refuse_test_key()
    workspace, body = current_workspace(), read_body()
    fields = Fields(read_object(body), NEW)
    url = fields.text("url", missing="Enter an address")
    description, kinds = fields.text("description"), fields.words("events")
    fields.refuse_faults()
    once = one_time(body)

    def create() -> Minted:
        assert url is not None
        return webhooks.create(
            workspace,
            actor=current_actor(),
            url=url,
            description=description or "",
            kinds=kinds or [],
            one_time_number=once.number,
            request_digest=once.digest,
        )

    return _shown_once(create, 201)


@bp.get("/webhooks/<endpoint_id>")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def get_webhook(endpoint_id: str) -> Response:
    return json_response(endpoint_object(webhooks.get(current_workspace(), endpoint_id)))


@bp.patch("/webhooks/<endpoint_id>")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def change_webhook(endpoint_id: str) -> Response:
    """Change what is given; null for ``description`` and ``events`` means none."""
    _refuse_test_key()
    workspace = current_workspace()
    webhooks.get(workspace, endpoint_id)
    fields = Fields(read_object(read_body()), CHANGES)
    url = fields.text("url", missing="Enter an address" if fields.given("url") else None)
    description, kinds = fields.text("description"), fields.words("events")
    disabled = fields.flag("disabled")
    fields.refuse_faults()
    changed = webhooks.change(
        workspace,
        endpoint_id,
        actor=current_actor(),
        url=url,
        description=(description or "") if fields.given("description") else None,
        kinds=(kinds or []) if fields.given("events") else None,
        disabled=disabled,
    )
    return json_response(endpoint_object(changed))


@bp.delete("/webhooks/<endpoint_id>")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def delete_webhook(endpoint_id: str) -> Response:
    _refuse_test_key()
    webhooks.delete(current_workspace(), endpoint_id, actor=current_actor())
    return json_response({"id": endpoint_id, "object": "webhook", "deleted": True})


@bp.post("/webhooks/<endpoint_id>/rotate-secret")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def rotate_webhook_secret(endpoint_id: str) -> Response:
    _refuse_test_key()
    workspace, body = current_workspace(), read_body()
    webhooks.get(workspace, endpoint_id)
    fields = Fields(read_object(body), ("overlap",))
    overlap = fields.text("overlap", missing=f"Give one of {', '.join(webhooks.OVERLAPS)}")
    fields.refuse_faults()
    once = one_time(body)

    def rotate() -> Minted:
        assert overlap is not None
        return webhooks.rotate_secret(
            workspace,
            endpoint_id,
            actor=current_actor(),
            overlap=overlap,
            one_time_number=once.number,
            request_digest=once.digest,
        )

    return _shown_once(rotate, 200)


@bp.post("/webhooks/<endpoint_id>/test")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def test_webhook(endpoint_id: str) -> Response:
    """Queue a test; 202 with its delivery, which tells later what came of it."""
    _refuse_test_key()
    workspace, once = current_workspace(), one_time(read_body())
    return _queued(
        endpoint_id,
        lambda: webhook_deliveries.send_test(
            workspace, endpoint_id, one_time_number=once.number, request_digest=once.digest
        ),
    )


@bp.get("/webhooks/<endpoint_id>/deliveries")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def list_deliveries(endpoint_id: str) -> Response:
    endpoint = webhooks.get(current_workspace(), endpoint_id)
    limit, after = asked_page()
    try:
        found, more = webhook_deliveries.page(endpoint, limit=limit, after=after)
    except NotFound:
        raise bad_cursor() from None
    attempts = webhook_deliveries.attempts_of(found)
    return _list([delivery_object(delivery, attempts[delivery.id]) for delivery in found], more)


@bp.get("/webhooks/<endpoint_id>/deliveries/<delivery_id>")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def get_delivery(endpoint_id: str, delivery_id: str) -> Response:
    endpoint = webhooks.get(current_workspace(), endpoint_id)
    return json_response(_with_attempts(webhook_deliveries.get(endpoint, delivery_id)))


@bp.post("/webhooks/<endpoint_id>/deliveries/<delivery_id>/redeliver")
@bearer_required(Scope.WEBHOOKS_MANAGE)
def redeliver(endpoint_id: str, delivery_id: str) -> Response:
    """Queue a delivery again; 202 with it."""
    _refuse_test_key()
    workspace, once = current_workspace(), one_time(read_body())
    return _queued(
        endpoint_id,
        lambda: webhook_deliveries.redeliver(
            workspace,
            endpoint_id,
            delivery_id,
            actor=current_actor(),
            one_time_number=once.number,
            request_digest=once.digest,
        ),
    )


def endpoint_object(endpoint: WebhookEndpoint) -> dict[str, object]:
    """Return an endpoint as the API shows it, without its secrets. No ``events`` mean all."""
    ends_at = max((row.ends_at for row in endpoint.secrets if row.ends_at is not None), default=None)
    return {
        "id": endpoint.id,
        "object": "webhook",
        "url": endpoint.url,
        "description": endpoint.description,
        "events": endpoint.events,
        "created_at": moment(endpoint.created_at),
        "created_by": endpoint.created_by_name,
        "disabled_at": moment(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_why,
        "failing_since": moment(endpoint.failing_since),
        "failed_deliveries": endpoint.failures,
        "last_answer": endpoint.last_answer,
        "last_delivery_at": moment(endpoint.last_delivery_at),
        "previous_secret_ends_at": moment(ends_at),
    }


def delivery_object(delivery: WebhookDelivery, attempts: list[WebhookAttempt]) -> dict[str, object]:
    """Return a delivery as the API shows it; its tries, the latest first."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "message_id": delivery.event_id,
        "type": delivery.event.kind,
        "status": webhook_deliveries.state_of(delivery),
        "created_at": moment(delivery.created_at),
        "delivered_at": moment(delivery.delivered_at),
        "next_attempt_at": moment(webhook_deliveries.next_attempt_of(delivery)),
        "attempts": [
            {
                "at": moment(attempt.at),
                "duration_ms": attempt.duration_ms,
                "status": attempt.status,
                "error": attempt.error,
                "answer": attempt.answer,
            }
            for attempt in attempts
        ],
    }


def _with_attempts(delivery: WebhookDelivery) -> dict[str, object]:
    return delivery_object(delivery, webhook_deliveries.attempts_of([delivery])[delivery.id])


def _list(found: list[dict[str, object]], more: bool) -> Response:
    cursor = cursor_after(str(found[-1]["id"])) if more else None
    return json_response({"object": "list", "data": found, "has_more": more, "next_cursor": cursor})


def _shown_once(act: Callable[[], Minted], status: int) -> Response:
    """Answer with the secret the act made. When it was carried out before, the secret is gone: then with null."""
    try:
        minted = act()
    except AlreadyDone as done:
        return _replayed({**endpoint_object(webhooks.get(current_workspace(), done.object_id)), "secret": None})
    return json_response({**endpoint_object(minted.endpoint), "secret": minted.secret.reveal()}, status)


def _queued(endpoint_id: str, act: Callable[[], WebhookDelivery]) -> Response:
    try:
        return json_response(_with_attempts(act()), 202)
    except AlreadyDone as done:
        endpoint = webhooks.get(current_workspace(), endpoint_id)
        return _replayed(_with_attempts(webhook_deliveries.get(endpoint, done.object_id)))


def _replayed(answer: dict[str, object]) -> Response:
    response = json_response(answer)
    response.headers[REPLAYED] = "true"
    return response


def _refuse_test_key() -> None:
    """What a test key does touches nothing that is live, and sends nothing anywhere."""
    if current_call().key.environment == "test":
        raise PermissionRefused("A test key cannot manage webhooks.")
