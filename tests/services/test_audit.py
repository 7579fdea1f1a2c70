"""The audit log is a chain: whatever is changed in the table shows."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from services import audit
from tests.people import Person


def record_some(person: Person, count: int = 5) -> None:
    for number in range(count):
        audit.record(
            person.workspace_id, person.actor, "test:act", object_name=f"thing {number}", details={"n": number}
        )


def broken() -> list[tuple[str, int]]:
    db.session.expire_all()
    return [(found.workspace, found.number) for found in audit.first_breaks()]


def test_an_untouched_log_holds(app: Flask, alice: Person, charlie: Person) -> None:
    record_some(alice)
    record_some(charlie)
    assert broken() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor_name = 'mallory' WHERE number = 4 AND workspace_id = :w",
        "UPDATE audit_event SET details = '{\"n\": 99}' WHERE number = 4 AND workspace_id = :w",
        "UPDATE audit_event SET address = NULL WHERE number = 4 AND workspace_id = :w",
        "DELETE FROM audit_event WHERE number = 4 AND workspace_id = :w",
    ],
)
def test_a_change_or_a_gap_is_found_and_named(app: Flask, alice: Person, charlie: Person, statement: str) -> None:
    record_some(alice)
    record_some(charlie)
    db.session.execute(text(statement), {"w": alice.workspace_id})
    db.session.commit()
    assert broken() == [(alice.slug, 4)]


def test_what_is_undone_leaves_no_entry(app: Flask, alice: Person) -> None:
    from models.base import transaction

    before = db.session.execute(text("SELECT count(*) FROM audit_event")).scalar()

    def fail_halfway() -> None:
        with transaction():
            record_some(alice, 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert db.session.execute(text("SELECT count(*) FROM audit_event")).scalar() == before
    assert broken() == []
