"""Deleting one's own account, as a person meets it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from flask import Flask

from extensions import db
from models import User, Workspace
from models.base import now, transaction
from services import keys
from tests import mailbox
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the service is tested with both databases."""
    return one_database_url


def test_an_account_is_deleted_after_a_proof_and_its_address(
    app: Flask, developer: Visitor, dora: Person, alice: Person, owner: Visitor
) -> None:
    developer.submit("/keys/new", name="Doras key")
    other = Visitor(app).sign_in(dora)
    assert "/account/delete" in developer.open("/account/security").links
    with time_machine.travel(now() + timedelta(minutes=16), tick=True):
        page = developer.open("/account/delete")
        assert page.first("h1") == "Is it you?"
        page = developer.send(page, proof_password=PASSWORD)
        assert developer.path == "/account/delete"
        assert "Your API keys in alice" in page.text
        page = developer.send(page, email="somebody@else.example")
        assert developer.status == 422
        assert f"Type {dora.email}, the address of this account" in page.text
        page = developer.send(page, email=f" {dora.email.upper()} ", **{f"keys_{alice.workspace_id}": alice.user_id})
        assert developer.path == "/sign-in"
        assert "Your account is deleted." in page.text
        other.open("/overview")
        assert other.path == "/sign-in"
        assert "do not match an account" in Visitor(app).submit("/sign-in", email=dora.email, password=PASSWORD).text
    assert mailbox.subjects(dora.email) == ["Your account was deleted"]
    assert db.session.get(Workspace, dora.workspace_id) is None
    assert [key.created_by_id for key in keys.living(alice.workspace)] == [alice.user_id]
    # The team's log goes on naming her.
    with time_machine.travel(now() + timedelta(minutes=16), tick=True):
        page = owner.open("/audit")
    assert f"Who {dora.email} What deleted the account Object {dora.email}" in page.text
    assert dora.email not in owner.open("/team").text


def test_who_is_the_only_owner_is_told_of_what_and_where_to_hand_over(
    owner: Visitor, alice: Person, bob: Person
) -> None:
    page = owner.open("/account/delete")
    assert "You are the only owner of workspaces with other members." in page.text
    assert "alice" in page.text
    assert "/workspaces" in page.links
    assert not [form for form in page.forms if form.action == "/account/delete"]
    page = owner.post_by_hand("/account/delete", email=alice.email, gone=alice.workspace_id)
    assert owner.status == 422
    assert "You are the only owner of alice. Make someone else an owner first." in page.text
    assert db.session.get(User, alice.user_id) is not None


def test_the_last_operator_is_told_to_make_another_first(owner: Visitor, alice: Person) -> None:
    with transaction() as session:
        session.get_one(User, alice.user_id).is_operator = True
    assert "You are the last operator." in owner.open("/account/delete").text
    page = owner.post_by_hand("/account/delete", email=alice.email, gone=alice.workspace_id)
    assert (owner.status, "You are the last operator." in page.text) == (422, True)
    assert db.session.get(User, alice.user_id) is not None


def test_a_workspace_that_came_since_the_page_was_read_is_not_lost(app: Flask, owner: Visitor, alice: Person) -> None:
    page = owner.open("/account/delete")
    assert "alice" in page.text
    Visitor(app).sign_in(alice).submit("/workspaces/new", name="Later")
    page = owner.send(page, email=alice.email)
    assert owner.status == 422
    assert "Your workspaces have just changed." in page.text
    assert "alice, Later" in page.text
    owner.send(page, email=alice.email)
    assert owner.path == "/sign-in"
    assert db.session.query(User).count() == db.session.query(Workspace).count() == 0
