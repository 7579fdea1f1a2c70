"""The page of the audit log, and the log as a file."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import text

from extensions import db
from models.base import now
from services import audit, audit_checks, keys
from services.actor import SYSTEM, Actor
from tests.pages.visitor import Visitor
from tests.people import Person

OTHER = Actor(kind="api_key", id="key_other", name="deploy", address="203.0.113.7", client="curl/8")


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested on both."""
    return one_database_url


def note(
    person: Person, count: int = 1, action: str = "key:change", actor: Actor | None = None, **more: object
) -> None:
    for number in range(count):
        values = {"object_id": f"key_{number}", "object_name": f"Server {number}", **more}
        audit.record(person.workspace_id, actor or person.actor, action, **values)  # type: ignore[arg-type]


def test_it_tells_when_who_what_about_what_and_from_where(owner: Visitor, alice: Person) -> None:
    note(alice, action="key:rotate", actor=OTHER, details={"overlap": "24h", "empty": None, "scopes": ["a:b", "c:d"]})
    page = owner.open("/audit")
    row = page.text[page.text.index("Clear") if "Clear" in page.text else 0 :]
    for words in (f"{now():%b %Y}", "deploy", "API key", "rotated the key", "Server 0", "203.0.113.7"):
        assert words in row
    assert "overlap: 24h; scopes: a:b, c:d" in page.text
    assert "empty" not in page.text
    assert page.first("title") == "Audit log · alice · ARKA"
    assert "/audit" in page.links


def test_only_owners_and_admins_see_it(owner: Visitor, viewer: Visitor, developer: Visitor) -> None:
    for visitor in (viewer, developer):
        for path in ("/audit", "/audit.csv", "/audit.json"):
            assert visitor.one_request("GET", path).status_code == 403
        assert "/audit" not in visitor.open("/overview").links
    assert "/audit" in owner.open("/overview").links


def test_50_a_page_older_and_newer(owner: Visitor, alice: Person) -> None:
    with_own = 3
    note(alice, 120 - with_own)
    # The sign-in is the fourth.
    first = owner.open("/audit")

    def numbers(source: str) -> list[int]:
        return [int(part.split("<")[0]) for part in source.split('<span class="sub">Entry ')[1:]]

    total = numbers(first.source)[0]
    assert numbers(first.source) == list(range(total, total - 50, -1))
    assert not [link for link in first.links if "after=" in link]
    (older,) = [link for link in first.links if "before=" in link]
    second = owner.open(older)
    assert numbers(second.source) == list(range(total - 50, total - 100, -1))
    (older,) = [link for link in second.links if "before=" in link]
    (newer,) = [link for link in second.links if "after=" in link]
    third = owner.open(older)
    assert numbers(third.source) == list(range(total - 100, 0, -1))
    assert not [link for link in third.links if "before=" in link]
    assert numbers(owner.open(newer).source) == numbers(first.source)
    # What is none of ours is no place.
    assert numbers(owner.open("/audit?before=x&after=-1").source) == numbers(first.source)


def test_filters_are_in_the_address_and_hold_for_the_files(owner: Visitor, alice: Person) -> None:
    note(alice, 2, action="key:disable", actor=OTHER)
    note(alice, 1, action="provider_key:add", object_id="pk_1", object_name="OpenAI")
    today, tomorrow = f"{now():%Y-%m-%d}", f"{now() + timedelta(days=1):%Y-%m-%d}"
    for query, count in [
        ("who=key_other", 2),
        ("what=key:disable", 2),
        ("what=provider_key", 1),
        ("about=pk_1", 1),
        (f"from={today}&to={today}&who=key_other", 2),
        (f"from={tomorrow}", 0),
        ("who=nobody", 0),
        ("what=%25", 0),
    ]:
        page = owner.open(f"/audit?{query}")
        assert owner.status == 200
        assert page.source.count('<span class="sub">Entry ') == count, query
        assert ("No entries match" in page.text) == (count == 0)
        (address,) = [link for link in page.links if link.startswith("/audit.csv")]
        lines = list(csv.DictReader(io.StringIO(owner.one_request("GET", address).text)))
        (address,) = [link for link in page.links if link.startswith("/audit.json")]
        entries = json.loads(owner.one_request("GET", address).text)
        assert [int(line["number"]) for line in lines] == [entry["number"] for entry in entries]
        assert len(entries) == count


@pytest.mark.parametrize("query", ["from=yesterday", "to=2026-13-01", "from=2026-11-21&to=2026-11-20"])
def test_a_day_that_is_none_is_told_at_its_field(owner: Visitor, query: str) -> None:
    page = owner.open(f"/audit?{query}")
    assert owner.status == 422
    assert page.first("title").startswith("Error: Audit log")
    assert "Enter a day" in page.text
    # And is not taken for no filter where nobody would see it.
    answer = owner.one_request("GET", f"/audit.csv?{query}")
    assert (answer.status_code, answer.text.count("\n")) == (422, 1)


def test_files_are_complete_and_carry_nothing_out(owner: Visitor, alice: Person) -> None:
    note(alice, 1_203, actor=Actor(kind="user", id="user_1", name="=HYPERLINK(1)", client="x;=1+1"))
    lines = list(csv.DictReader(io.StringIO(owner.one_request("GET", "/audit.csv").text)))
    answer = owner.one_request("GET", "/audit.json")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit-alice.json"'
    entries = json.loads(answer.text)
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
    assert len(entries) == len(lines) > 1_203
    assert (lines[-1]["actor_name"], lines[-1]["client"]) == ("'=HYPERLINK(1)", "x;'=1+1")
    assert entries[-1]["actor_name"] == "=HYPERLINK(1)"
    assert len(bytes.fromhex(entries[-1]["hash"])) == 32


def test_the_state_of_the_chain_is_told(app: Flask, owner: Visitor, alice: Person) -> None:
    assert "not verified yet" in owner.open("/audit").text
    note(alice, 4)
    found = audit_checks.verify(alice.workspace_id, "alice")
    page = owner.open("/audit")
    assert f"Verified up to entry {found.number}, {now().day} {now():%b %Y}, " in page.text
    assert " UTC." in page.text
    db.session.execute(text("DELETE FROM audit_event WHERE number = 3"))
    db.session.commit()
    audit_checks.verify(alice.workspace_id, "alice")
    page = owner.open("/audit")
    assert "This log is not as it was written. Entry 3 is missing or was changed." in page.text
    assert "Verified up to" not in page.text


def test_an_act_nobody_has_words_for_is_shown_by_its_name(owner: Visitor, alice: Person) -> None:
    note(alice, action="moon:land", actor=SYSTEM)
    page = owner.open("/audit")
    assert "moon:land" in page.text
    assert owner.open("/audit?what=moon").text.count("moon:land") >= 1


def test_the_list_of_keys_leads_to_the_deleted_ones(owner: Visitor, viewer: Visitor, alice: Person) -> None:
    kept, gone = (
        keys.mint(alice.workspace, actor=alice.actor, name=name, kind="secret", environment="test").key.id
        for name in ("Kept", "Gone")
    )
    keys.delete(alice.workspace, gone, actor=alice.actor)
    (link,) = [link for link in owner.open("/keys").links if link.startswith("/audit?")]
    page = owner.open(link)
    assert "deleted the key" in page.text
    assert "Gone" in page.text
    assert "Kept" not in page.text
    assert not [link for link in viewer.open("/keys").links if link.startswith("/audit")]
    assert kept
