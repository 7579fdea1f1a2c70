"""``/v1/keys``: what the pages do with keys, for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required
from blueprints.v1.body import read_body
from blueprints.v1.caller import current_actor, current_ceiling, current_workspace
from blueprints.v1.idempotency import REPLAYED, one_time
from blueprints.v1.objects import json_response, key_object
from blueprints.v1.paging import asked_page, bad_cursor, cursor_after
from models import ApiKey, Workspace
from services import keys, restrictions, rotation
from services.errors import AlreadyDone, InvalidInput, NotFound
from services.json_input import Fields, read_object
from services.parts import parts
from services.permissions import Scope
from services.restrictions import Restrictions

NEW_KEY = ("name", "kind", "environment", "scopes", "preset", "expires_at", "restrictions")
CHANGES = ("name", "expires_at", "restrictions")
RESTRICTIONS = (
    "models",
    "networks",
    "origins",
    "requests_per_minute",
    "daily_limit_usd",
    "monthly_limit_usd",
    "allow_unknown_price",
)


@bp.get("/keys")
@bearer_required(Scope.KEYS_READ)
def list_keys() -> Response:
    workspace = current_workspace()
    found, has_more = _page(workspace)
    used = keys.last_uses(workspace, [key.id for key in found])
    return json_response(
        {
            "object": "list",
            "data": [key_object(key, used.get(key.id)) for key in found],
            "has_more": has_more,
            "next_cursor": cursor_after(found[-1].id) if has_more else None,
        }
    )


@bp.post("/keys")
@bearer_required(Scope.KEYS_WRITE)
def create_key() -> Response:
    workspace, body = current_workspace(), read_body()
    fields = Fields(read_object(body), NEW_KEY)
    name = fields.text("name", missing="Enter a name for the key")
    kind = fields.text("kind", missing="Choose secret or publishable")
    environment = fields.text("environment", missing="Choose live or test")
    scopes, preset = fields.words("scopes"), fields.text("preset")
    if (scopes is None) == (preset is None):
        fields.fault("scopes", "Give scopes or a preset, one of the two")
    expires_at = fields.moment("expires_at")
    restricted = _restrictions(workspace, fields, kind or "", restrictions.Restrictions())
    fields.refuse_faults()
    once = one_time(body)

    def mint() -> keys.Minted:
        assert name is not None
        assert kind is not None
        assert environment is not None
        with _named_as_sent():
            return keys.mint(
                workspace,
                actor=current_actor(),
                name=name,
                kind=kind,
                environment=environment,
                scopes=scopes,
                preset=preset,
                expires_at=expires_at,
                restrictions=restricted,
                within=current_ceiling(workspace),
                one_time_number=once.number,
                request_digest=once.digest,
            )

    return _shown_once(workspace, mint, 201)


@bp.get("/keys/<key_id>")
@bearer_required(Scope.KEYS_READ)
def get_key(key_id: str) -> Response:
    workspace = current_workspace()
    return _answer(workspace, keys.get(workspace, key_id))


@bp.patch("/keys/<key_id>")
@bearer_required(Scope.KEYS_WRITE)
def change_key(key_id: str) -> Response:
    workspace = current_workspace()
    key = keys.get(workspace, key_id)
    fields = Fields(read_object(read_body()), CHANGES)
    name = fields.text("name", missing="Enter a name for the key" if fields.given("name") else None)
    expires_at: datetime | keys.Unchanged | None = fields.moment("expires_at")
    if not fields.given("expires_at"):
        expires_at = keys.UNCHANGED

    def merged(key: ApiKey) -> Restrictions:
        """Put what is sent over what holds."""
        restricted = _restrictions(workspace, fields, key.kind, keys.restrictions_of(key))
        fields.refuse_faults()
        return restricted

    # Once for all faults at a time, and again with the key locked: of two who change two parts both have their way.
    if fields.given("restrictions"):
        merged(key)
    fields.refuse_faults()
    with _named_as_sent():
        changed = keys.change(
            workspace,
            key_id,
            actor=current_actor(),
            name=name,
            expires_at=expires_at,
            restrictions=merged if fields.given("restrictions") else None,
            within=current_ceiling(workspace),
        )
    return _answer(workspace, changed)


@bp.delete("/keys/<key_id>")
@bearer_required(Scope.KEYS_WRITE)
def delete_key(key_id: str) -> Response:
    workspace = current_workspace()
    key = keys.delete(workspace, key_id, actor=current_actor(), within=current_ceiling(workspace))
    return json_response({"id": key.id, "object": "key", "deleted": True})


@bp.post("/keys/<key_id>/rotate")
@bearer_required(Scope.KEYS_WRITE)
def rotate_key(key_id: str) -> Response:
    workspace, body = current_workspace(), read_body()
    keys.get(workspace, key_id)
    fields = Fields(read_object(body), ("overlap",))
    overlap = fields.text("overlap", missing=f"Give one of {', '.join(rotation.OVERLAPS)}, or a moment with its zone")
    fields.refuse_faults()
    once = one_time(body)

    def rotate() -> keys.Minted:
        assert overlap is not None
        with _named_as_sent():
            return rotation.rotate(
                workspace,
                key_id,
                actor=current_actor(),
                until=rotation.moment_after(overlap),
                within=current_ceiling(workspace),
                one_time_number=once.number,
                request_digest=once.digest,
            )

    return _shown_once(workspace, rotate, 200)


@bp.post("/keys/<key_id>/rotation/finish")
@bearer_required(Scope.KEYS_WRITE)
def finish_rotation(key_id: str) -> Response:
    return _carried_out(rotation.finish, key_id)


@bp.post("/keys/<key_id>/disable")
@bearer_required(Scope.KEYS_WRITE)
def disable_key(key_id: str) -> Response:
    return _carried_out(keys.disable, key_id)


@bp.post("/keys/<key_id>/enable")
@bearer_required(Scope.KEYS_WRITE)
def enable_key(key_id: str) -> Response:
    return _carried_out(keys.enable, key_id)


def _carried_out(act: Callable[..., ApiKey], key_id: str) -> Response:
    """Answer with the key after an act that shows no secret."""
    workspace, once = current_workspace(), one_time(read_body())
    try:
        key = act(
            workspace,
            key_id,
            actor=current_actor(),
            within=current_ceiling(workspace),
            one_time_number=once.number,
            request_digest=once.digest,
        )
    except AlreadyDone as done:
        return _replayed(_object(workspace, keys.get_any(workspace, done.object_id)))
    return _answer(workspace, key)


def _answer(workspace: Workspace, key: ApiKey) -> Response:
    return json_response(_object(workspace, key))


def _object(workspace: Workspace, key: ApiKey) -> dict[str, object]:
    return key_object(key, keys.last_uses(workspace, [key.id]).get(key.id))


def _shown_once(workspace: Workspace, act: Callable[[], keys.Minted], status: int) -> Response:
    """Answer with the secret the act made. When it was carried out before, the secret is gone: then with null."""
    try:
        minted = act()
    except AlreadyDone as done:
        return _replayed({**_object(workspace, keys.get_any(workspace, done.object_id)), "key": None})
    return json_response({**_object(workspace, minted.key), "key": minted.secret.reveal()}, status)


def _replayed(answer: dict[str, object]) -> Response:
    response = json_response(answer)
    response.headers[REPLAYED] = "true"
    return response


def _restrictions(workspace: Workspace, fields: Fields, kind: str, present: Restrictions) -> Restrictions:
    """Read ``restrictions``; a part that is not given stays as it is, an empty list or null lifts it."""
    part = fields.part("restrictions", RESTRICTIONS)
    lists = {
        name: (part.words(name) or ()) if part.given(name) else getattr(present, name)
        for name in ("models", "networks", "origins")
    }
    number = part.number("requests_per_minute")
    if not part.given("requests_per_minute"):
        number = present.requests_per_minute
    kept = restrictions.as_dict(present)
    amounts: dict[str, Any] = {
        name: part.value(name) if part.given(name) else kept[name] for name in ("daily_limit_usd", "monthly_limit_usd")
    }
    allow = part.flag("allow_unknown_price") if part.given("allow_unknown_price") else present.allow_unknown_price
    # A limit that the key has already may stay, whatever the plan is now.
    limit = max(parts().plans.requests_per_minute(workspace), present.requests_per_minute or 0)
    try:
        return restrictions.read(
            kind,
            **lists,
            requests_per_minute=number,
            plan_limit=limit,
            **amounts,
            allow_unknown_price=bool(allow),
        )
    except InvalidInput as error:
        for name, sentence in error.fields.items():
            part.fault(name, sentence)
        return present


@contextmanager
def _named_as_sent() -> Iterator[None]:
    """Name a restriction that the services refuse as it stands in the body: ``restrictions.models``."""
    try:
        yield
    except InvalidInput as error:
        fields = {f"restrictions.{name}" if name in RESTRICTIONS else name: said for name, said in error.fields.items()}
        raise InvalidInput(fields) from None


def _page(workspace: Workspace) -> tuple[list[ApiKey], bool]:
    limit, after = asked_page()
    try:
        return keys.page(workspace, limit=limit, after=after)
    except NotFound:
        raise bad_cursor() from None
