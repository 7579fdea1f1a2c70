"""The operator's console: for operators only, and what is done there to customers is in their logs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from blueprints import guards
from extensions import db
from models import AuditEvent, LoginSession, MailMessage, ProviderKey
from models.base import new_id, now, transaction
from services import access_requests, accounts, customers, keys, mail
from services.actor import SYSTEM
from services.keys import Minted
from services.permissions import Role
from services.secret import Secret
from tests.neighbours.storage import GROWN
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person, join, make_person

Mint = Callable[..., Minted]
WISH = {"use": "A bot that answers.", "volume": "some", "reply_to": "erin@solo.example"}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: tests/services asks the same of both."""
    return one_database_url


def make_operator(email: str = "ops@portal.example") -> Person:
    workspace = accounts.create_user(email, Secret(PASSWORD), is_operator=True, actor=SYSTEM)
    return Person(email, customers.get_user_by_email(email).id, workspace.id, workspace.slug)


@pytest.fixture
def olga(app: Flask) -> Person:
    """An operator."""
    return make_operator()


@pytest.fixture
def operator(app: Flask, olga: Person) -> Visitor:
    return Visitor(app).sign_in(olga)


@pytest.fixture
def erin(app: Flask) -> Person:
    """Owner of a workspace on Starter."""
    return make_person("erin@solo.example")


def ask(person: Person) -> int:
    return access_requests.ask(person.workspace, actor=person.actor, **WISH).number


def log(person: Person, action: str) -> list[AuditEvent]:
    db.session.rollback()
    return db.session.query(AuditEvent).filter_by(workspace_id=person.workspace_id, action=action).all()


def queue(recipient: str = "mira@solo.example", workspace_id: str | None = None, **more: Any) -> str:
    words = {"workspace_name": "x", "slug": "x", "number": 1, "at": now(), "use_lines": [], "answer_lines": ["Hello."]}
    message = mail.queue(recipient, "About request 1", "access_declined", workspace_id, **words)
    if more:
        with transaction() as session:
            session.execute(update(MailMessage).where(MailMessage.id == message.id).values(**more))
    return message.id


# ---- who gets in


def test_for_everybody_else_there_is_no_console(app: Flask, owner: Visitor, operator: Visitor, erin: Person) -> None:
    number, message = ask(erin), queue()
    things = {"number": str(number), "message_id": message, "workspace_id": erin.workspace_id, "user_id": erin.user_id}
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("operator.")]
    assert len(rules) > 15
    nothing = {method: said(owner, method, "/operator/nothing") for method in ("GET", "POST")}
    assert {status for status, _ in nothing.values()} == {404}
    for rule in rules:
        assert getattr(app.view_functions[rule.endpoint], guards.MARK) == "operator", rule.endpoint
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: things[match[1]], rule.rule)
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            assert said(owner, method, path) == nothing[method], (method, path)
            if method == "GET":
                assert operator.one_request("GET", path).status_code in (200, 303), path
                answer = Visitor(app).one_request("GET", path)
                assert answer.headers["Location"].startswith("/sign-in?next="), path
    assert [request.state for request in access_requests.queue().rows] == ["open"]


def said(visitor: Visitor, method: str, path: str) -> tuple[int, str]:
    data = {"csrf_token": visitor.token(), "reason": "x", "plan": "agency", "why": "x"} if method == "POST" else None
    answer = visitor.one_request(method, path, data=data)
    return answer.status_code, answer.get_data(as_text=True)


def test_operators_find_the_console_in_their_menu_and_the_way_back(operator: Visitor, owner: Visitor) -> None:
    assert "/operator" in operator.open("/overview").links
    assert "/operator" not in owner.open("/overview").links
    page = operator.open("/operator")
    assert operator.path == "/operator/requests"
    assert page.first("title") == "Access requests · Operator · ARKA"
    assert "Operator" in page.text
    # No word of a workspace: neither its name nor its pages.
    assert not {"/keys", "/usage", "/plan", "/workspaces"} & set(page.links)
    assert {"/operator/accounts", "/operator/plans", "/operator/system", "/operator/mail", "/overview"} <= set(
        page.links
    )
    page = operator.open("/operator/requests/999")
    assert operator.status == 404
    assert "/operator/mail" in page.links


# ---- access requests


def test_a_request_is_granted_from_the_queue(app: Flask, operator: Visitor, erin: Person) -> None:
    number = ask(erin)
    page = operator.open("/operator/requests")
    for words in ("erin", "A bot that answers.", "Agency", "100 to 1,000", "just now"):
        assert words in page.text.replace("Just now", "just now")
    page = operator.open(f"/operator/requests/{number}")
    page = operator.send(form_of(page, "grant"), ("plan", "agency"), words="Renewed in May.", answer="Welcome.")
    assert operator.path == "/operator/requests"
    assert "erin is on Agency. The answer goes to erin@solo.example." in page.text
    assert "No open requests" in page.text
    assert (erin.workspace.plan, erin.workspace.plan_words) == ("agency", "Renewed in May.")
    (entry,) = log(erin, "plan:change")
    assert (entry.actor_kind, entry.actor_name, entry.address) == ("operator", "ops@portal.example", "127.0.0.1")
    page = operator.open("/operator/requests/decided")
    for words in ("Granted", "Agency", "ops@portal.example"):
        assert words in page.text
    assert "Decision" in operator.open(f"/operator/requests/{number}").text


def form_of(page: Html, act: str) -> Html:
    """The page with the one form of that act."""
    page.forms = [form for form in page.forms if form.action.endswith(f"/{act}")]
    return page


def test_enterprise_is_granted_with_a_limit(operator: Visitor, erin: Person) -> None:
    number = ask(erin)
    page = form_of(operator.open(f"/operator/requests/{number}"), "grant")
    for limit in ("many", "0", "1000001", "9" * 30, "-1", "1.5"):
        answer = operator.send(page, ("plan", "enterprise"), requests_per_minute=limit)
        assert operator.status == 422, limit
        assert "Give a number from 1 to 1,000,000." in answer.text
        assert f'value="{limit}"' in answer.source
    for plan in ("starter", "gold", ""):
        operator.send(page, ("plan", plan))
        assert operator.status == 422
    assert erin.workspace.plan == "starter"
    operator.send(page, ("plan", "enterprise"), requests_per_minute="5,000")
    assert (erin.workspace.plan, erin.workspace.requests_per_minute) == ("enterprise", 5000)


def test_a_request_is_declined_with_a_reason_that_is_sent(operator: Visitor, erin: Person) -> None:
    number = ask(erin)
    page = form_of(operator.open(f"/operator/requests/{number}"), "decline")
    answer = operator.send(page, why=" ")
    assert operator.status == 422
    assert "Say why: the reason is sent to who has asked" in answer.text
    answer = operator.send(page, why="Not this month.")
    assert f"Request {number} is declined. The reason goes to erin@solo.example." in answer.text
    assert "Not this month." in db.session.query(MailMessage).order_by(MailMessage.created_at.desc()).first().text  # type: ignore[union-attr]
    assert (erin.workspace.plan, len(log(erin, "access_request:decline"))) == ("starter", 1)


def test_of_two_operators_one_decides_and_the_other_is_told(app: Flask, operator: Visitor, erin: Person) -> None:
    number = ask(erin)
    other = Visitor(app).sign_in(make_operator("second@portal.example"))
    pages = [visitor.open(f"/operator/requests/{number}") for visitor in (operator, other)]
    operator.send(form_of(pages[0], "grant"), ("plan", "agency"))
    page = other.send(form_of(pages[1], "decline"), why="No.")
    assert other.path == f"/operator/requests/{number}"
    assert f"Request {number} was granted by ops@portal.example already." in page.text
    assert (erin.workspace.plan, db.session.query(MailMessage).count()) == ("agency", 2)


# ---- accounts


def test_accounts_are_searched(app: Flask, operator: Visitor, alice: Person, bob: Person, mint: Mint) -> None:
    mint("Production Server")
    page = operator.open("/operator/accounts")
    for words in ("alice", "bob", "ops", "Agency", "3 workspaces"):
        assert words in page.text
    page = operator.open("/operator/accounts?q=bob@northwind")
    assert "2 workspaces found" in page.text
    for words in ("%", "_", "nothing"):
        assert "No workspaces match" in operator.open(f"/operator/accounts?q={words}").text
    assert "Nothing on this page" in operator.open("/operator/accounts?page=99999999999999999999").text
    page = operator.open("/operator/accounts/people?q=bob")
    assert "1 person found" in page.text
    assert f"/operator/people/{bob.user_id}" in page.links
    assert "Nobody matches" in operator.open("/operator/accounts/people?q=%25").text
    page = operator.open(f"/operator/workspaces/{alice.workspace_id}")
    for words in ("alice@northwind.example", "bob@northwind.example", "Owner", "Viewer", "Active keys 1"):
        assert words in page.text


def test_a_plan_is_set_with_a_reason(operator: Visitor, erin: Person) -> None:
    path = f"/operator/workspaces/{erin.workspace_id}/plan"
    page = operator.submit(path, plan="enterprise", requests_per_minute="7")
    assert operator.status == 422
    assert "Give a reason: it goes to the workspace’s audit log" in page.text
    assert erin.workspace.plan == "starter"
    page = operator.send(page, reason="Asked by phone.")
    assert "erin is on Enterprise." in page.text
    assert (erin.workspace.plan, erin.workspace.requests_per_minute) == ("enterprise", 7)
    (entry,) = log(erin, "plan:change")
    assert (entry.actor_kind, entry.details["reason"]) == ("operator", "Asked by phone.")
    assert dict(operator.open(path).main_form.fields)["requests_per_minute"] == "7"


def test_a_downgrade_says_what_it_does_before_it_does_it(operator: Visitor, alice: Person, mint: Mint) -> None:
    mint("One"), mint("Two")
    keys.disable(alice.workspace, mint("Off").key.id, actor=alice.actor)
    page = operator.submit(f"/operator/workspaces/{alice.workspace_id}/plan", plan="starter", reason="Not paid.")
    for words in (
        "Change alice to Starter?",
        "alice has 2 active keys. From the next request on they answer 403 plan_required. Keys are kept; upgrading "
        "brings them back.",
        "Change to Starter",
        "Keep Agency",
    ):
        assert words in page.text
    assert alice.workspace.plan == "agency"
    page = operator.send(page)
    assert "alice is on Starter." in page.text
    assert (alice.workspace.plan, log(alice, "plan:change")[-1].details["reason"]) == ("starter", "Not paid.")


def test_an_account_is_closed_and_reopened(app: Flask, operator: Visitor, alice: Person, bob: Person) -> None:
    victim = Visitor(app).sign_in(bob)
    path = f"/operator/people/{bob.user_id}"
    page = operator.submit(f"{path}/close", reason="")
    assert operator.status == 422
    page = operator.send(page, reason="Left the company.")
    assert operator.path == path
    assert "The account bob@northwind.example is closed." in page.text
    assert f"{path}/reopen" in page.links
    assert f"{path}/close" not in page.links
    assert victim.open("/overview").first("h1") == "Sign in"
    assert db.session.query(LoginSession).filter_by(user_id=bob.user_id).count() == 0
    for person in (alice, bob):
        (entry,) = log(person, "user:close")
        assert (entry.actor_kind, entry.details) == ("operator", {"reason": "Left the company."})
    page = victim.submit("/sign-in", email=bob.email, password=PASSWORD)
    assert "do not match an account" in page.text
    operator.submit(f"{path}/reopen", reason="Came back.")
    assert Visitor(app).sign_in(bob)


def test_one_s_own_account_cannot_be_closed(operator: Visitor, olga: Person) -> None:
    assert "This is your own account." in operator.open(f"/operator/people/{olga.user_id}").text
    operator.submit(f"/operator/people/{olga.user_id}/close", reason="x")
    assert operator.status == 403
    assert operator.open("/operator").first("h1") == "Access requests"


# ---- plans, system, mail


def test_plans_are_counted_also_those_that_have_left_the_table(operator: Visitor, alice: Person, erin: Person) -> None:
    with transaction():
        erin.workspace.plan = "founders"
    page = operator.open("/operator/plans")
    for words in ("Agency agency", "$699 per month", "Founders founders, no longer in the table"):
        assert words in page.text


def test_the_system_page_says_what_doctor_says_and_more(app: Flask, operator: Visitor, alice: Person) -> None:
    page = operator.open("/operator/system")
    for words in (
        "Your account is protected by a password alone.",
        "Schema",
        "the newest",
        "All is well",
        "Counted in Redis" if GROWN else "Counted in SQLite",
        "Open to everybody",
        "Seals and opens",
        "Written to files, for no mail server is set: 0 waiting, none failed",
        "Check provider keys again",
        "1 minute between runs",
    ):
        assert words in page.text
    with transaction() as session:
        at = now()
        session.add(
            ProviderKey(
                id=new_id("prv"), workspace_id=alice.workspace_id, provider="openai", sealed="v1.00000000.AA.AA",
                state="valid", checked_at=at, created_at=at, updated_at=at, created_by_name="x",
            )
        )  # fmt: skip
    page = operator.open("/operator/system")
    for words in ("1 check failed.", "alice: the openai key cannot be decrypted", "Missing"):
        assert words in page.text


def test_no_page_of_the_console_shows_a_secret(
    app: Flask, operator: Visitor, alice: Person, mint: Mint, environment: dict[str, str]
) -> None:
    minted = mint("Production Server")
    instance = Path(environment["ARKA_INSTANCE_PATH"])
    secrets = [(instance / name).read_text().strip() for name in ("secret_key", "master_key")]
    secrets += [minted.secret.reveal(), "$argon2id"]
    shown = ""
    for path in (
        "requests", "requests/decided", "accounts", "accounts/people", "plans", "system", "mail",
        f"workspaces/{alice.workspace_id}", f"people/{alice.user_id}",
    ):  # fmt: skip
        shown += operator.open(f"/operator/{path}").source
        assert operator.status == 200
    for secret in secrets:
        assert secret not in shown


def test_mail_is_listed_by_state_and_failed_mail_is_tried_again(operator: Visitor, alice: Person, erin: Person) -> None:
    failed = queue(
        "mira@solo.example", alice.workspace_id, failed_at=now(), attempts=11, last_error="SMTPDataError: 550 no"
    )
    waiting, sent = queue("waiting@solo.example"), queue("sent@solo.example", sent_at=now())
    page = operator.open("/operator/mail")
    assert {f"/operator/mail/{one}" for one in (failed, waiting, sent)} <= set(page.links)
    page = operator.open("/operator/mail?status=failed")
    for words in ("mira@solo.example", "SMTPDataError: 550 no", "11", "1 message"):
        assert words in page.text
    assert "waiting@solo.example" not in page.text
    page = operator.submit(f"/operator/mail/{failed}")
    assert "The message waits to be sent again." in page.text
    message = db.session.get_one(MailMessage, failed)
    assert (message.failed_at, message.attempts) == (None, 0)
    while mail.send_next():
        pass
    operator.post_by_hand(f"/operator/mail/{failed}/try-again")
    assert db.session.get_one(MailMessage, failed).sent_at is not None
    assert [entry.actor_kind for entry in log(alice, "mail:try_again")] == ["operator"]
    operator.open("/operator/mail/mail_nothing")
    assert operator.status == 404


def test_an_operator_reads_mail_in_files_but_opens_nobody_s_account_by_it(
    app: Flask, operator: Visitor, olga: Person
) -> None:
    other, own = queue("mira@solo.example"), queue(olga.email)
    assert "It is not written yet." in operator.open(f"/operator/mail/{other}").text
    while mail.send_next():
        pass
    page = operator.open(f"/operator/mail/{other}")
    assert "Hello." in page.text
    assert "[a link, not shown here]" in page.text
    # Neither the one in the text nor the one at its foot.
    assert "http" not in page.source.split('id="text-h"')[1]
    assert "/keys" in operator.open(f"/operator/mail/{own}").text
    next((Path(app.instance_path) / "mail").glob(f"*{other}*")).unlink()
    assert "on another node, or was removed" in operator.open(f"/operator/mail/{other}").text


def test_with_a_mail_server_nobody_is_shown_what_a_message_says(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    environment["ARKA_SMTP_URL"] = "smtp://127.0.0.1:1"
    operator: Visitor = request.getfixturevalue("operator")
    page = operator.open(f"/operator/mail/{queue('ops@portal.example')}")
    assert "Hello." not in page.text
    assert "the portal shows nobody what a message says" in page.text
    assert "Sent by a mail server" in operator.open("/operator/system").text


def test_an_operator_who_is_one_no_longer_is_out_at_once(operator: Visitor, olga: Person) -> None:
    operator.open("/operator/system")
    with transaction():
        customers.get_user(olga.user_id).is_operator = False
    operator.open("/operator/system")
    assert operator.status == 404


def test_members_read_of_the_operator_s_acts_in_their_log(app: Flask, operator: Visitor, alice: Person) -> None:
    frank = make_person("frank@northwind.example")
    join(frank, alice, Role.ADMIN)
    operator.submit(f"/operator/people/{frank.user_id}/close", reason="Asked by Alice.")
    page = Visitor(app).sign_in(alice).open("/overview")
    assert "ops@portal.example closed the account frank@northwind.example" in page.text


def test_a_message_of_long_ago_is_on_a_later_page(operator: Visitor) -> None:
    with transaction():
        for number in range(51):
            queue(f"p{number}@solo.example", created_at=now() - timedelta(minutes=number))
    assert "p50@solo.example" not in operator.open("/operator/mail").text
    page = operator.open("/operator/mail?page=2")
    assert "p50@solo.example" in page.text
    assert "Page 2 of 2" in page.text
