"""The audit log is a chain: whatever is changed in the tables shows, and where it begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import flask_migrate
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from extensions import db
from models import AuditCheck, AuditEvent, AuditHead
from models.base import now, transaction
from services import audit, audit_chain, audit_checks
from services.actor import SYSTEM
from tests.people import Person
from tests.services.test_database import in_threads

# With the three that making alice's workspace leaves.
LENGTH = 8
EXAMPLES = 12


def record_some(person: Person, count: int = 5) -> None:
    for number in range(count):
        audit.record(
            person.workspace_id, person.actor, "test:act", object_name=f"thing {number}", details={"n": number}
        )


def fill(person: Person) -> None:
    record_some(person, LENGTH - length_of(person))


def length_of(person: Person) -> int:
    query = select(func.count()).select_from(AuditEvent).where(AuditEvent.workspace_id == person.workspace_id)
    return db.session.scalar(query) or 0


def broken() -> list[tuple[str, int]]:
    db.session.expire_all()
    return [(found.workspace, found.number) for found in audit.first_breaks()]


def test_an_untouched_log_holds(app: Flask, alice: Person, charlie: Person) -> None:
    record_some(alice)
    record_some(charlie)
    assert broken() == []


def test_entries_of_several_at_once_make_one_chain(app: Flask, alice: Person) -> None:
    before = length_of(alice)
    assert in_threads(app, lambda: record_some(alice, 4), count=4) == []
    db.session.rollback()
    assert length_of(alice) == before + 16
    assert broken() == []


def test_what_is_undone_leaves_no_entry(app: Flask, alice: Person) -> None:
    before = db.session.execute(text("SELECT count(*) FROM audit_event")).scalar()

    def fail_halfway() -> None:
        with transaction():
            record_some(alice, 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert db.session.execute(text("SELECT count(*) FROM audit_event")).scalar() == before
    assert broken() == []


# ---- Whatever is done to the tables by somebody who has no key


class Vandal:
    """Somebody who may write to the tables, and knows how the portal works, but not its signing key."""

    def __init__(self, victim: Person, other: Person) -> None:
        self.id, self.other_id = victim.workspace_id, other.workspace_id

    def run(self, statement: str, **values: Any) -> None:
        db.session.execute(text(statement), {"w": self.id, "o": self.other_id, **values})

    def edit(self, column: str, value: Any, place: int) -> None:
        self.run(f"UPDATE audit_event SET {column} = :v WHERE workspace_id = :w AND number = :n", v=value, n=place)

    def renumber(self, place: int, number: int) -> None:
        self.edit("number", number, place)

    def swap(self, one: int, other: int) -> None:
        self.renumber(one, -1)
        self.renumber(other, one)
        self.renumber(-1, other)

    def delete(self, first: int, last: int) -> None:
        self.run(
            "DELETE FROM audit_event WHERE workspace_id = :w AND number BETWEEN :first AND :last",
            first=first,
            last=last,
        )

    def insert(self, number: int, *, version: int) -> None:
        """Put an entry in, and chain it and the rest as anybody can."""
        for place in range(LENGTH, number - 1, -1):
            self.renumber(place, place + 1)
        self.run(
            "INSERT INTO audit_event (workspace_id, number, at, actor_kind, actor_name, action, details, hash,"
            " hash_version) SELECT workspace_id, :n, at, actor_kind, 'mallory', action, details, hash, :v"
            " FROM audit_event WHERE workspace_id = :w LIMIT 1",
            n=number,
            v=version,
        )
        self.chain_plainly(number)

    def chain_plainly(self, first: int) -> None:
        """Bind entries by SHA-256, as older versions did."""
        db.session.expire_all()
        query = select(AuditEvent).where(AuditEvent.workspace_id == self.id).order_by(AuditEvent.number)
        before = audit_chain.START
        for entry in list(db.session.scalars(query)):
            if entry.number >= first:
                entry.hash_version = 1
                entry.hash = audit_chain.hash_of(before, entry)
            before = entry.hash
        db.session.flush()

    def forge_head(self, number: int | None) -> None:
        self.run("DELETE FROM audit_head WHERE workspace_id = :w")
        if number is not None:
            self.run("INSERT INTO audit_head (workspace_id, number, mac) VALUES (:w, :n, :m)", n=number, m=b"m" * 32)


class _Undone(Exception):
    pass


@contextmanager
def undone_afterwards() -> Iterator[None]:
    """Do something to the tables and look at it, and leave everything as it was."""
    try:
        with transaction():
            yield
            raise _Undone
    except _Undone:
        pass


places = st.integers(1, LENGTH)
TEXTS = ["actor_kind", "actor_id", "actor_name", "action", "object_id", "object_name", "address", "client"]
VANDALISM: dict[str, st.SearchStrategy[tuple[Callable[[Vandal], None], int]]] = {
    "edit": st.builds(
        lambda place, column: (lambda v: v.edit(column, "mallory", place), place), places, st.sampled_from(TEXTS)
    ),
    "details": st.builds(lambda place: (lambda v: v.edit("details", '{"n": 99}', place), place), places),
    "moment": st.builds(lambda place: (lambda v: v.edit("at", now() - timedelta(days=9), place), place), places),
    "hash": st.builds(lambda place: (lambda v: v.edit("hash", b"h" * 32, place), place), places),
    "version": st.builds(
        lambda place, version: (lambda v: v.edit("hash_version", version, place), place),
        places,
        st.sampled_from([0, 1, 3]),
    ),
    "delete": st.builds(lambda place: (lambda v: v.delete(place, place), place), places),
    "delete some": st.builds(lambda a, b: (lambda v: v.delete(min(a, b), max(a, b)), min(a, b)), places, places),
    "cut off": st.builds(
        lambda place, head: (lambda v: (v.delete(place, LENGTH), v.forge_head(head and place - 1)), place),
        places,
        st.sampled_from([None, 1]),
    ),
    "swap": st.tuples(places, places).filter(lambda two: two[0] != two[1]).map(
        lambda two: (lambda v: v.swap(*two), min(two))
    ),
    "move": st.builds(lambda place: (lambda v: v.run(
        "UPDATE audit_event SET workspace_id = :o, number = 99 WHERE workspace_id = :w AND number = :n", n=place
    ), place), places),
    "insert": st.builds(
        lambda place, version: (lambda v: (v.insert(place, version=version), v.forge_head(LENGTH + 1)), place),
        st.integers(1, LENGTH + 1),
        st.sampled_from([1, 2]),
    ),
    "chained anew": st.builds(
        lambda place, head: (
            lambda v: (v.edit("actor_name", "mallory", place), v.chain_plainly(place), head and v.forge_head(LENGTH)),
            place,
        ),
        places,
        st.booleans(),
    ),
    "renumber": st.builds(lambda place: (lambda v: v.renumber(place, 50), place), places),
    "before the first": st.just((lambda v: v.run(
        "INSERT INTO audit_event (workspace_id, number, at, actor_kind, actor_name, action, details, hash,"
        " hash_version) SELECT workspace_id, 0, at, actor_kind, actor_name, action, details, hash, 2"
        " FROM audit_event WHERE workspace_id = :w AND number = 1"
    ), 0)),
    "head": st.just((lambda v: v.forge_head(LENGTH), LENGTH + 1)),
    "no head": st.just((lambda v: v.forge_head(None), LENGTH + 1)),
    "further head": st.just((lambda v: v.forge_head(LENGTH + 3), LENGTH + 1)),
}  # fmt: skip


def test_the_first_broken_entry_is_named_and_goes_on_to_be(app: Flask, alice: Person, charlie: Person) -> None:
    """After any edit, deletion, insertion or move, and also when the log has gone on since."""
    fill(alice)
    record_some(charlie, 1)
    vandal = Vandal(alice, charlie)

    def look(kind: str, done: tuple[Callable[[Vandal], None], int]) -> None:
        act, first = done
        with undone_afterwards():
            act(vandal)
            found = dict(broken())
            assert found.pop("alice") == first
            # Where something was moved to, it shows as well.
            assert set(found) == ({"charlie"} if kind == "move" else set())
            audit.record(alice.workspace_id, SYSTEM, "test:later")
            assert dict(broken())["alice"] == first

    for kind, strategy in VANDALISM.items():
        settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)(
            given(st.just(kind), strategy)(look)
        )()
    assert broken() == []


@pytest.mark.parametrize("with_head", [True, False])
def test_a_log_that_was_emptied_does_not_begin_again_as_if_nothing_had_been(
    app: Flask, alice: Person, with_head: bool
) -> None:
    fill(alice)
    vandal = Vandal(alice, alice)
    with transaction():
        vandal.delete(1, LENGTH)
        if with_head:
            vandal.forge_head(None)
    assert broken() == [("alice", 1)]
    record_some(alice, 3)
    assert broken() == [("alice", 1)]


# ---- Logs of older versions


def as_older_versions_left_it() -> None:
    """Bind every entry by SHA-256, without heads, and take the schema back to where there were none."""
    for workspace_id in db.session.scalars(select(AuditEvent.workspace_id).distinct()).all():
        with transaction() as session:
            before = bytes(32)
            query = select(AuditEvent).where(AuditEvent.workspace_id == workspace_id).order_by(AuditEvent.number)
            for entry in session.scalars(query):
                told = [
                    entry.workspace_id, entry.number, entry.at.isoformat(), entry.actor_kind, entry.actor_id,
                    entry.actor_name, entry.action, entry.object_id, entry.object_name, entry.details,
                    entry.address, entry.client,
                ]  # fmt: skip
                line = json.dumps(told, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
                entry.hash = before = hashlib.sha256(before + line.encode()).digest()
    db.session.remove()
    flask_migrate.downgrade(revision="0003")


def test_an_upgrade_binds_what_older_versions_wrote(app: Flask, alice: Person, charlie: Person) -> None:
    fill(alice)
    record_some(charlie)
    as_older_versions_left_it()
    flask_migrate.upgrade()
    assert broken() == []
    assert set(db.session.scalars(select(AuditEvent.hash_version))) == {2}
    record_some(alice, 2)
    assert broken() == []


def test_an_upgrade_does_not_hide_what_was_broken_before(app: Flask, alice: Person, charlie: Person) -> None:
    fill(alice)
    as_older_versions_left_it()
    db.session.execute(text("UPDATE audit_event SET actor_name = 'mallory' WHERE number = 4"))
    db.session.commit()
    flask_migrate.upgrade()
    assert broken() == [("alice", 4)]
    record_some(alice, 2)
    assert broken() == [("alice", 4)]
    assert audit.seal() == ["alice"]
    assert broken() == [("alice", 4)]


def test_entries_of_an_older_version_that_still_runs_are_bound_when_an_operator_says_so(
    app: Flask, alice: Person
) -> None:
    fill(alice)
    with transaction():
        Vandal(alice, alice).insert(LENGTH + 1, version=1)
    record_some(alice, 1)
    assert broken() == [("alice", LENGTH + 1)]
    assert audit.seal() == []
    assert broken() == []
    assert length_of(alice) == LENGTH + 2


def test_under_another_signing_key_everything_can_be_bound_anew(app: Flask, alice: Person) -> None:
    fill(alice)
    with transaction() as session:
        for entry in session.scalars(select(AuditEvent)):
            entry.hash = b"another key's".ljust(32)
        for head in session.scalars(select(AuditHead)):
            head.mac = b"another key's".ljust(32)
    assert broken() == [("alice", 1)]
    assert audit.seal() == ["alice"]
    assert audit.seal(anew=True) == []
    assert broken() == []


# ---- Verifying from time to time


def test_every_chain_is_verified_in_the_background_and_a_break_is_told_once(
    app: Flask, alice: Person, charlie: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(alice)
    while audit_checks.verify_next():
        pass
    check = audit_checks.check_of(alice.workspace)
    assert check is not None
    assert (check.number, check.broken_number) == (LENGTH, None)
    assert now() - check.checked_at < timedelta(minutes=1)
    assert db.session.query(AuditCheck).count() == 2
    Vandal(alice, alice).edit("actor_name", "mallory", 5)
    db.session.commit()
    capsys.readouterr()
    for _ in range(2):
        audit_checks.verify(alice.workspace_id, "alice")
    log = capsys.readouterr().err
    assert log.count("an audit log is not as it was written") == 1
    check = audit_checks.check_of(alice.workspace)
    assert check is not None
    assert (check.number, check.broken_number) == (4, 5)


def test_a_chain_is_verified_again_after_hours_and_sooner_when_it_has_grown(app: Flask, alice: Person) -> None:
    assert audit_checks.verify_next()
    assert not audit_checks.verify_next()

    def age(**of: int) -> None:
        with transaction() as session:
            session.query(AuditCheck).update({"checked_at": now() - timedelta(**of)})

    age(minutes=30)
    assert not audit_checks.verify_next()
    record_some(alice, 1)
    assert audit_checks.verify_next()
    age(hours=7)
    assert audit_checks.verify_next()
