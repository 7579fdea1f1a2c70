"""A portal that asks everybody for a second factor."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.factors import add_app
from tests.pages.visitor import Visitor
from tests.people import Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested with both databases."""
    return one_database_url


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"ARKA_SECOND_FACTOR": "required"}


def test_without_a_second_factor_one_gets_no_further_than_to_setting_one_up(app: Flask, alice: Person) -> None:
    visitor = Visitor(app)
    visitor.submit("/sign-in", email=alice.email, password=alice.password)
    for path in ("/overview", "/keys/new", "/workspaces", "/operator", "/account/security"):
        page = visitor.open(path)
        assert visitor.path == "/account/security", path
    assert "This portal asks everybody for a second factor." in visitor.open("/keys").text
    form = next(form for form in page.forms if form.action == "/account/app")
    answer = visitor.request("POST", form.action, data=dict(form.fields))
    assert answer.request.path == "/account/app/new"
    add_app(alice)
    visitor.open("/keys")
    assert visitor.path == "/keys"


def test_a_form_sent_without_a_second_factor_changes_nothing(app: Flask, alice: Person) -> None:
    visitor = Visitor(app)
    visitor.submit("/sign-in", email=alice.email, password=alice.password)
    token = dict(visitor.open("/account/security").forms[0].fields)["csrf_token"]
    answer = visitor.one_request("POST", "/workspaces/new", data={"csrf_token": token, "name": "Another"})
    assert answer.headers["Location"].startswith("/account/security")
    assert "Another" not in visitor.open("/account/profile").text


def test_signing_out_stays_possible(app: Flask, alice: Person) -> None:
    visitor = Visitor(app)
    visitor.submit("/sign-in", email=alice.email, password=alice.password)
    form = next(form for form in visitor.open("/account/security").forms if form.action == "/sign-out")
    answer = visitor.request("POST", form.action, data=dict(form.fields))
    assert answer.request.path == "/sign-in"
