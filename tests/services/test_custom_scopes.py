"""Scopes of a workspace: none is removed while a key has it, however close the two acts are."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from flask import Flask

from extensions import db
from models import CustomScope
from models.base import transaction
from services import custom_scopes, keys
from services.errors import InvalidInput
from tests.people import Person


def test_a_scope_that_a_key_is_just_getting_stays(app: Flask, alice: Person, mint: Callable[..., keys.Minted]) -> None:
    scope = custom_scopes.define(alice.workspace, "tasks:write", "Change tasks", actor=alice.actor)
    refused: list[InvalidInput] = []

    def remove() -> None:
        with app.app_context():
            try:
                custom_scopes.remove(alice.workspace, scope.id, actor=alice.actor)
            except InvalidInput as error:
                refused.append(error)
            finally:
                db.session.remove()

    thread = threading.Thread(target=remove)
    with transaction():
        minted = mint(scopes=["tasks:write"])
        thread.start()
        # It has every chance to overtake.
        thread.join(1)
    thread.join(20)
    assert len(refused) == 1
    db.session.expire_all()
    assert db.session.get(CustomScope, scope.id) is not None
    assert keys.get(alice.workspace, minted.key.id).scopes == ["tasks:write"]


def test_a_scope_that_is_just_going_is_given_to_no_key(app: Flask, alice: Person) -> None:
    scope = custom_scopes.define(alice.workspace, "tasks:write", "Change tasks", actor=alice.actor)
    refused: list[InvalidInput] = []

    def make() -> None:
        with app.app_context():
            try:
                keys.mint(
                    alice.workspace,
                    actor=alice.actor,
                    name="late",
                    kind="secret",
                    environment="test",
                    scopes=["tasks:write"],
                )
            except InvalidInput as error:
                refused.append(error)
            finally:
                db.session.remove()

    thread = threading.Thread(target=make)
    with transaction():
        custom_scopes.remove(alice.workspace, scope.id, actor=alice.actor)
        thread.start()
        thread.join(1)
    thread.join(20)
    assert [set(error.fields) for error in refused] == [{"scopes"}]
    assert keys.living(alice.workspace) == []


def test_each_workspace_has_scopes_of_its_own(alice: Person, charlie: Person) -> None:
    scope = custom_scopes.define(alice.workspace, "tasks:write", "Change tasks", actor=alice.actor)
    with pytest.raises(InvalidInput, match="exists already"):
        custom_scopes.define(alice.workspace, "tasks:write", "Again", actor=alice.actor)
    custom_scopes.define(charlie.workspace, "tasks:write", "Another", actor=charlie.actor)
    assert custom_scopes.get(alice.workspace, scope.id).meaning == "Change tasks"
