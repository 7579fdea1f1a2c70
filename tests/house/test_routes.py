"""Every route says who may use it."""

from __future__ import annotations

from flask import Flask

from blueprints import guards
from blueprints.v1 import auth

# The one thing under /v1 that is read without a key.
DESCRIPTION = "/v1/openapi.json"


def test_every_route_carries_exactly_one_guard(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        marks = [mark for mark in (guards.MARK, auth.MARK) if hasattr(view, mark)]
        wanted = auth.MARK if rule.rule.startswith("/v1/") and rule.rule != DESCRIPTION else guards.MARK
        assert marks == [wanted], f"{rule.rule} ({rule.endpoint}) has {marks or 'no guard'}"


def test_what_is_public_says_why(app: Flask) -> None:
    public = {
        rule.rule: str(mark)
        for rule in app.url_map.iter_rules()
        if (mark := getattr(app.view_functions[rule.endpoint], guards.MARK, "")).startswith("public")
    }
    assert set(public) == {
        "/",
        "/assets/<version>/<name>",
        "/confirm/<token>",
        "/email/undo/<token>",
        "/found-a-key",
        "/found-a-key/done",
        "/healthz",
        "/invitations/<token>",
        "/invitations/<token>/account",
        "/invitations/<token>/sign-out",
        "/metrics",
        "/readyz",
        "/reset",
        "/reset/<token>",
        "/reset/sent",
        "/setup/<token>",
        "/sign-in",
        "/sign-in/code",
        "/sign-in/code/passkey",
        "/sign-in/passkey",
        "/sign-in/passkey/options",
        "/sign-in/elsewhere",
        "/sign-in/elsewhere/back",
        "/sign-out",
        "/sign-up",
        "/sign-up/sent",
        DESCRIPTION,
    }
    assert all(len(reason) > len("public: ") + 10 for reason in public.values())


def test_what_is_delicate_asks_again_who_is_there(app: Flask) -> None:
    asking = {
        rule.rule for rule in app.url_map.iter_rules() if hasattr(app.view_functions[rule.endpoint], guards.ASKS_AGAIN)
    }
    assert asking >= {
        "/account/app",
        "/account/app/new",
        "/account/app/remove",
        "/account/delete",
        "/account/passkeys/<passkey_id>/delete",
        "/account/passkeys/<passkey_id>/rename",
        "/account/passkeys/new",
        "/account/passkeys/options",
        "/account/recovery-codes",
        "/keys/<key_id>/delete",
        "/keys/<key_id>/edit",
        "/keys/<key_id>/enable",
        "/keys/<key_id>/rotate",
        "/keys/<key_id>/rotation/finish",
        "/keys/new",
        "/keys/providers/<name>/delete",
        "/keys/providers/<name>/update",
        "/keys/providers/new",
        "/keys/scopes",
        "/keys/scopes/<scope_id>/remove",
        "/usage/limits",
    }
