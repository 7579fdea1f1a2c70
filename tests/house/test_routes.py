"""Every route says who may use it."""

from __future__ import annotations

from flask import Flask

from blueprints import guards
from blueprints.v1 import auth


def test_every_route_carries_exactly_one_guard(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        marks = [mark for mark in (guards.MARK, auth.MARK) if hasattr(view, mark)]
        wanted = auth.MARK if rule.rule.startswith("/v1/") else guards.MARK
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
        "/metrics",
        "/readyz",
        "/reset",
        "/reset/<token>",
        "/reset/sent",
        "/setup/<token>",
        "/sign-in",
        "/sign-in/elsewhere",
        "/sign-in/elsewhere/back",
        "/sign-in/code",
        "/sign-in/code/passkey",
        "/sign-in/passkey",
        "/sign-in/passkey/options",
        "/sign-out",
        "/sign-up",
        "/sign-up/sent",
    }
    assert all(len(reason) > len("public: ") + 10 for reason in public.values())
