"""What calls to ``/v1`` leave out of Flask's work is known to be for pages, or to have found nothing to do."""

from __future__ import annotations

from flask import Flask


def test_the_hooks_at_the_end_of_a_request_are_the_two_that_calls_may_leave_out(app: Flask) -> None:
    # blueprints/portal.py: an API call skips the first always, the second when it used no database session.
    assert [hook.__qualname__ for hook in app.teardown_request_funcs[None]] == ["Limiter.__release_context"]
    assert [hook.__qualname__ for hook in app.teardown_appcontext_funcs] == ["SQLAlchemy._teardown_session"]
