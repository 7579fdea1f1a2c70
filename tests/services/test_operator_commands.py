"""The operator's commands: requests for a plan, and accounts. They call the services that the pages call."""

from __future__ import annotations

import pytest
from click.testing import Result
from flask import Flask

from extensions import db
from models import AuditEvent, MailMessage
from services import access_requests
from services.actor import SYSTEM
from services.errors import WrongCredentials
from services.secret import Secret
from tests.people import PASSWORD, Person, enter, make_person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: the services are tested with both."""
    return one_database_url


@pytest.fixture
def erin(app: Flask) -> Person:
    return make_person("erin@solo.example")


def run(app: Flask, *arguments: str) -> Result:
    result = app.test_cli_runner().invoke(args=list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    db.session.rollback()
    return result


def ask(person: Person) -> None:
    wish = {"use": "A bot\tthat\nanswers.", "volume": "some", "reply_to": "erin@solo.example"}
    access_requests.ask(person.workspace, actor=SYSTEM, **wish)


def log(person: Person, *acts: str) -> list[tuple[str, str]]:
    entries = db.session.query(AuditEvent).filter_by(workspace_id=person.workspace_id).order_by(AuditEvent.number)
    return [(entry.action, entry.actor_kind) for entry in entries if entry.action.startswith(acts)]


def test_requests_are_listed_granted_and_declined(app: Flask, erin: Person) -> None:
    ask(erin)
    row = "1\topen\terin\tagency\t0\terin@solo.example\t100 to 1,000\tA bot that answers.\n"
    assert run(app, "request", "list").stdout == row
    assert run(app, "request", "decline", "1").exit_code == 2
    assert run(app, "request", "decline", "1", "--words", "Not yet.").exit_code == 0
    again = run(app, "request", "grant", "1")
    assert (again.exit_code, "Request 1 was declined by" in again.output) == (1, True)
    assert run(app, "request", "grant", "7").exit_code == 1
    assert run(app, "request", "list").stdout == ""
    assert run(app, "request", "list", "--decided").stdout.startswith("1\tdeclined\terin\t")
    ask(erin)
    options = ["--plan", "enterprise", "--requests-per-minute", "70", "--words", "Until May."]
    assert run(app, "request", "grant", "2", *options).exit_code == 0
    workspace = erin.workspace
    assert (workspace.plan, workspace.requests_per_minute, workspace.plan_words) == ("enterprise", 70, "Until May.")
    assert log(erin, "access", "plan") == [
        ("access_request:send", "system"),
        ("access_request:decline", "command"),
        ("access_request:send", "system"),
        ("access_request:grant", "command"),
        ("plan:change", "command"),
    ]
    recipients = [letter.recipient for letter in db.session.query(MailMessage).order_by(MailMessage.created_at)]
    assert recipients == ["sales@arka-ai.com", "erin@solo.example"] * 2


def test_a_request_is_granted_as_it_was_asked(app: Flask, erin: Person) -> None:
    ask(erin)
    granted = run(app, "request", "grant", "1")
    assert "erin is on Agency. The answer goes to erin@solo.example." in granted.output
    assert erin.workspace.plan == "agency"


def test_accounts_are_listed_closed_and_reopened(app: Flask, erin: Person) -> None:
    columns = run(app, "user", "list").stdout.rstrip("\n").split("\t")
    assert columns[1:] == ["erin@solo.example", "-", "open", "-"]
    assert run(app, "user", "close", "ERIN@solo.example", "--reason", "Not paid.").exit_code == 0
    assert run(app, "user", "list").stdout.split("\t")[3] == "closed"
    with pytest.raises(WrongCredentials):
        enter(erin.email, Secret(PASSWORD), address=None, client=None)
    assert run(app, "user", "reopen", "erin@solo.example").exit_code == 0
    assert run(app, "user", "close", "nobody@solo.example").exit_code == 1
    assert log(erin, "user:close", "user:reopen") == [("user:close", "command"), ("user:reopen", "command")]


def test_a_plan_is_set_with_words_and_a_reason(app: Flask, erin: Person) -> None:
    options = ["--words", "Until May.", "--reason", "Asked by phone."]
    assert run(app, "workspace", "set-plan", "erin", "agency", *options).exit_code == 0
    assert (erin.workspace.plan, erin.workspace.plan_words) == ("agency", "Until May.")
    entry = db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).first()
    assert entry is not None
    assert entry.details["reason"] == "Asked by phone."
    run(app, "workspace", "set-plan", "erin", "starter")
    assert erin.workspace.plan_words == "Until May."
