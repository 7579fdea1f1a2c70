"""What holds on every page: its frame, its links, its markup, its headers, and what must never be in it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from config import ROOT
from models import ProviderKey, UsageRecord
from models.base import new_id, now, transaction
from services import access_requests, accounts, custom_scopes, customers, keys, outbox, rotation, workspaces
from services.actor import SYSTEM
from services.keys import Minted
from services.secret import Secret
from tests import mailbox
from tests.pages.html import Html
from tests.pages.visitor import Visitor
from tests.people import PASSWORD, Person, make_person

Mint = Callable[..., Minted]

TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: what a page looks like does not depend on the database."""
    return one_database_url


@pytest.fixture(scope="module")
def seen() -> dict[str, Html]:
    return {}


@pytest.fixture
def every_page(request: pytest.FixtureRequest, seen: dict[str, Html]) -> dict[str, Html]:
    """Each page in its usual states, for who only reads them: one walk for all of these tests, which takes seconds."""
    if not seen:
        seen.update(request.getfixturevalue("pages_now"))
    return seen


@pytest.fixture
def pages_now(app: Flask, owner: Visitor, alice: Person, mint: Mint, use: Callable[..., None]) -> dict[str, Html]:
    """Each page of the portal in its usual states, by a name that failures can show."""
    used, unused = mint("Production Server"), mint("Old importer")
    use(used, times=3)
    stopped, expired, rotating = mint("Stopped"), mint("Partner demo"), mint("Billing sync")
    keys.disable(alice.workspace, stopped.key.id, actor=alice.actor)
    with transaction():
        expired.key.expires_at = now() - timedelta(days=3)
        unused.key.secrets[0].created_at = now() - timedelta(days=100)
    use(rotating)
    rotation.rotate(alice.workspace, rotating.key.id, actor=alice.actor, until=now() + timedelta(days=7))
    scope = custom_scopes.define(alice.workspace, "emails:send", "Send e-mails.", actor=alice.actor)
    refused = note_refusal(used)
    stranger = Visitor(app)
    token = accounts.set_up_token()
    assert token is not None
    pages = {
        "sign in": stranger.open("/sign-in"),
        "sign in, refused": stranger.submit("/sign-in", email="", password=""),
        "sign up": stranger.open("/sign-up"),
        "sign up, refused": stranger.submit("/sign-up", email="x"),
        "sign up, sent": stranger.open("/sign-up/sent"),
        "confirm": stranger.open(asked(stranger, "/sign-up", "erin@new.example", "/confirm/")),
        "confirm, used": stranger.open("/confirm/old"),
        "reset": stranger.open("/reset"),
        "reset, refused": stranger.submit("/reset", email="x"),
        "reset, sent": stranger.open("/reset/sent"),
        "reset, link": stranger.open(asked(stranger, "/reset", alice.email, "/reset/")),
        "account security": owner.open("/account/security"),
        "delete account": owner.open("/account/delete"),
        "change password": owner.open("/account/password"),
        "change password, refused": owner.submit("/account/password", current="x", password="y"),
        "change address": owner.open("/account/email"),
        "change address, refused": owner.submit("/account/email", email="x", password="y"),
        "set up": stranger.open(f"/setup/{token.reveal()}"),
        "set up used": stranger.open("/setup/old"),
        "found a key": stranger.open("/found-a-key"),
        "found a key, refused": stranger.submit("/found-a-key", key="x", note="y"),
        "found a key, done": stranger.open("/found-a-key/done"),
        "not found, signed out": stranger.open("/nowhere"),
        "overview": owner.open("/overview"),
        "workspaces": owner.open("/workspaces"),
        "keys": owner.open("/keys"),
        "keys, page too far": owner.open("/keys?page=9"),
        "new key": owner.open("/keys/new"),
        "new key, refused": owner.submit("/keys/new", name="", preset="one_by_one", expires="on_a_date"),
        "key, used": owner.open(f"/keys/{used.key.id}"),
        "key, unused": owner.open(f"/keys/{unused.key.id}"),
        "delete, used": owner.open(f"/keys/{used.key.id}/delete"),
        "delete, refused": owner.submit(f"/keys/{used.key.id}/delete", name="x"),
        "delete, unused": owner.open(f"/keys/{unused.key.id}/delete"),
        "keys, filtered": owner.open("/keys?q=sync&status=retiring"),
        "keys, nothing found": owner.open("/keys?q=nonsense"),
        "keys, a whole key typed": owner.open(f"/keys?q={used.secret.reveal()}"),
        "new key, wrong restrictions": owner.submit("/keys/new", name="x", networks="10.0.0.0/99"),
        "key, disabled": owner.open(f"/keys/{stopped.key.id}"),
        "key, expired": owner.open(f"/keys/{expired.key.id}"),
        "key, rotating": owner.open(f"/keys/{rotating.key.id}"),
        "edit": owner.open(f"/keys/{used.key.id}/edit"),
        "edit, refused": owner.submit(f"/keys/{used.key.id}/edit", name="", origins="https://x.example"),
        "rotate": owner.open(f"/keys/{used.key.id}/rotate"),
        "rotate, again": owner.open(f"/keys/{rotating.key.id}/rotate"),
        "rotate, expired": owner.open(f"/keys/{expired.key.id}/rotate"),
        "rotate, refused": owner.submit(f"/keys/{used.key.id}/rotate", overlap="moment", date="x"),
        "rotation": owner.open(f"/keys/{rotating.key.id}/rotation"),
        "disable": owner.open(f"/keys/{used.key.id}/disable"),
        "refusals": owner.open("/keys/refusals"),
        "refusals, explained": owner.open(f"/keys/refusals?request_id={refused}"),
        "refusals, unknown": owner.open("/keys/refusals?request_id=req_unknown"),
        "refusals, a whole key typed": owner.open(f"/keys/refusals?request_id={used.secret.reveal()}"),
        "scopes": owner.open("/keys/scopes"),
        "scopes, refused": owner.submit("/keys/scopes", name="x", meaning=""),
        "remove scope": owner.open(f"/keys/scopes/{scope.id}/remove"),
        "providers, none": owner.open("/keys/providers"),
        "usage": owner.open("/usage"),
        "usage, by the hour": owner.open("/usage?range=24h"),
        "usage, this month": owner.open("/usage?range=month"),
        "usage, filtered": owner.open(f"/usage?range=30d&key={used.key.id}"),
        "usage, nothing found": owner.open("/usage?model=nothing"),
        "playground": owner.open("/playground"),
        "playground, empty": owner.submit("/playground", model="", message=""),
        "playground, refused": owner.submit("/playground", model="gpt-4o", message="Hello, world!"),
        "quickstart": owner.open("/quickstart"),
        "not found": owner.open("/keys/nonsense"),
    }
    gone = mint("gone")
    pages["deleted"] = owner.submit(f"/keys/{gone.key.id}/delete")
    pages["key, deleted"] = owner.open(f"/keys/{gone.key.id}")
    form = owner.open(f"/keys/{unused.key.id}/rotate")
    pages["shown once, rotated"] = owner.send(form)
    pages["already shown, rotated"] = owner.send(form)
    form = owner.open("/keys/new")
    pages["shown once"] = owner.send(form, name="brand new")
    pages["already shown"] = owner.send(form, name="brand new")
    connect(alice, "openai", "valid")
    connect(alice, "openrouter", "invalid")
    pages["providers"] = owner.open("/keys/providers")
    for path in ("new", "openai/update", "openrouter/delete"):
        pages[f"providers, {path}"] = owner.open(f"/keys/providers/{path}")
    pages["providers, refused"] = owner.submit("/keys/providers/new", key="")
    pages["overview, with a broken provider"] = owner.open("/overview")
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    pages["keys, paused"] = owner.open("/keys")
    pages["overview, paused"] = owner.open("/overview")
    pages["quickstart, paused"] = owner.open("/quickstart")
    pages["playground, answered"] = owner.submit("/playground", model="gpt-4o", message="Hello, world!")
    lonely = Visitor(app).sign_in(solo())
    pages["gate"] = lonely.open("/keys")
    pages["gate, refused"] = lonely.submit("/keys", use="", reply_to="nobody")
    pages |= pages_of_requests(lonely)
    pages |= operator_pages(Visitor(app).sign_in(make_operator()), alice)
    pages["usage, none"] = lonely.open("/usage")
    return pages


def asked(visitor: Visitor, page: str, email: str, link: str) -> str:
    """Ask for a link by mail and return its path."""
    visitor.submit(page, email=email)
    return mailbox.link(email, link)


def pages_of_requests(visitor: Visitor) -> dict[str, Html]:
    """The Plan page and the gate of a workspace on Starter, at each step of a request. Two requests are left: one
    declined, one open."""
    pages = {"plan": visitor.open("/plan"), "ask": visitor.open("/plan/request")}
    pages["ask, refused"] = visitor.submit("/plan/request", use="")
    pages["gate, asked"] = visitor.submit("/keys", use="A bot that answers.\nIn two lines.")
    number = access_requests.queue().rows[-1].number
    access_requests.decline(number, answer="Not yet.", actor=SYSTEM)
    pages["gate, declined"] = visitor.open("/keys")
    visitor.submit("/plan/request", use="A" + "a" * 300)
    pages["plan, asked"] = visitor.open("/plan")
    return pages


def make_operator() -> Person:
    """Somebody who runs the portal."""
    workspace = accounts.create_user(OPERATOR, Secret(PASSWORD), is_operator=True, actor=SYSTEM)
    return Person(OPERATOR, customers.get_user_by_email(OPERATOR).id, workspace.id, workspace.slug)


def operator_pages(operator: Visitor, customer: Person) -> dict[str, Html]:
    """The operator's console in its usual states."""
    waiting, declined = access_requests.queue().rows[0].number, access_requests.decided().rows[0].number
    message = outbox.messages().rows[-1].id
    pages = {f"operator, {path}": operator.open(f"/operator/{path}") for path in OPERATOR_PATHS}
    pages["operator, request"] = operator.open(f"/operator/requests/{waiting}")
    pages["operator, request decided"] = operator.open(f"/operator/requests/{declined}")
    for act, words in (("grant", {"requests_per_minute": "many"}), ("decline", {"why": ""})):
        page = operator.open(f"/operator/requests/{waiting}")
        page.forms = [form for form in page.forms if form.action.endswith(act)]
        pages[f"operator, {act} refused"] = operator.send(page, ("plan", "agency"), **words)
    workspace, person = f"/operator/workspaces/{customer.workspace_id}", f"/operator/people/{customer.user_id}"
    for path in (workspace, f"{workspace}/plan", person, f"{person}/close", f"/operator/mail/{message}"):
        pages[f"operator, {path}"] = operator.open(path)
    pages["operator, set plan, refused"] = operator.submit(f"{workspace}/plan", reason="")
    operator.submit(f"{workspace}/plan", plan="agency", reason="For the page of a downgrade.")
    pages["operator, downgrade"] = operator.submit(f"{workspace}/plan", plan="starter", reason="Not paid.")
    pages["operator, not found"] = operator.open("/operator/mail/nothing")
    return pages


OPERATOR = "ops@portal.example"
OPERATOR_PATHS = (
    "requests", "requests/decided", "requests?page=9", "accounts", "accounts?q=nothing", "accounts?page=9",
    "accounts/people", "accounts/people?q=nothing", "plans", "system", "mail", "mail?status=sent", "mail?status=failed",
)  # fmt: skip


def note_refusal(minted: Minted) -> str:
    """Note a call that lacked a scope; return its request id."""
    request_id = new_id("req")
    with transaction() as session:
        session.add(
            UsageRecord(
                request_id=request_id,
                workspace_id=minted.key.workspace_id,
                api_key_id=minted.key.id,
                secret_id=minted.key.secrets[0].id,
                environment=minted.key.environment,
                endpoint="/v1/chat/completions",
                started_at=now(),
                status=403,
                code="insufficient_scope",
                details={"required": "chat:write"},
                streamed=False,
                address="203.0.113.24",
                client="tests/1.0",
            )
        )
    return request_id


def solo() -> Person:
    return make_person("erin@solo.example")


def connect(person: Person, provider: str, state: str) -> None:
    """Connect a provider without asking it."""
    with transaction() as session:
        session.add(
            ProviderKey(
                id=new_id("prv"),
                workspace_id=person.workspace_id,
                provider=provider,
                sealed="sealed",
                state=state,
                checked_at=now(),
                created_at=now(),
                updated_at=now(),
                created_by_name=person.email,
            )
        )


def test_every_link_on_every_page_leads_somewhere(pages_now: dict[str, Html], owner: Visitor, app: Flask) -> None:
    operator = Visitor(app).sign_in(Person(OPERATOR, "", "", ""))
    followed = set()
    for name, page in pages_now.items():
        # What the console leads to is for operators.
        visitor = operator if name.startswith("operator") else owner
        for link in {*page.links, *(value for _, attribute, value in page.attributes if attribute == "src")}:
            if link.startswith("#"):
                assert link[1:] in page.ids, f"{name}: nothing has the id {link}"
            elif not link.startswith("mailto:") and (visitor, link) not in followed:
                assert link.startswith("/"), f"{name}: {link}"
                answer = visitor.request("GET", link)
                assert answer.status_code == 200, f"{name}: {link} answers {answer.status_code}"
                answer.close()
                # Most links are on most pages.
                followed.add((visitor, link))


def test_every_form_leads_somewhere(every_page: dict[str, Html], app: Flask) -> None:
    adapter = app.url_map.bind("")
    for page in every_page.values():
        for form in page.forms:
            assert adapter.match(form.action.partition("?")[0], method=form.method.upper())
            # A form that only asks changes nothing, and its token would stand in the address.
            assert ("csrf_token" in form.names) == (form.method == "post")


def test_every_page_has_one_title_and_the_landmarks(every_page: dict[str, Html]) -> None:
    for name, page in every_page.items():
        tags = [tag for tag, attribute, _ in page.attributes if attribute == "id"]
        assert page.source.count("<h1>") == 1, name
        assert page.source.count("<main ") == 1, name
        assert "<header " in page.source, name
        assert "<footer " in page.source, name
        assert page.links[0] == "#main", name
        assert len(page.ids) == len(set(page.ids)) == len(tags), f"{name}: an id is there twice"
        assert page.first("title").endswith(" · ARKA"), name
        assert "Times are in UTC" in page.text, name


def test_labels_and_descriptions_point_at_what_is_there(every_page: dict[str, Html]) -> None:
    for name, page in every_page.items():
        for _tag, attribute, value in page.attributes:
            if attribute in ("for", "aria-describedby", "aria-labelledby"):
                for one in value.split():
                    assert one in page.ids, f"{name}: {attribute} names {one}"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(every_page: dict[str, Html]) -> None:
    for name, page in every_page.items():
        assert "<style" not in page.source, name
        assert "data:" not in page.source, name
        assert not re.search(r"<script(?![^>]+src=)", page.source), name
        for tag, attribute, value in page.attributes:
            assert attribute != "style", f"{name}: {tag}"
            assert not attribute.startswith("on"), f"{name}: {tag} {attribute}"
            assert not value.startswith(("http:", "https:", "//", "javascript:")), f"{name}: {attribute}={value}"


def test_every_moment_is_told_to_machines_too(every_page: dict[str, Html]) -> None:
    for name, page in every_page.items():
        for tag in re.findall(r"<time[^>]*>", page.source):
            assert re.search(r'datetime="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"', tag), f"{name}: {tag}"


def test_only_the_page_that_shows_a_key_holds_one(every_page: dict[str, Html]) -> None:
    full_key = re.compile(r"arka_[sp]k_(test_)?[0-9A-Za-z]{32}")
    shown = [name for name, page in every_page.items() if full_key.search(page.source)]
    assert shown == ["shown once, rotated", "shown once"]
    assert not any(full_key.search(every_page[name].first("title")) for name in shown)


def test_no_password_goes_back_into_a_page(every_page: dict[str, Html]) -> None:
    for name, page in every_page.items():
        for tag in re.findall(r'<input[^>]+type="password"[^>]*>', page.source):
            assert 'value=""' in tag, name


def test_brand_prefix_and_sales_address_are_settings(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    environment |= {"ARKA_BRAND": "Lumen", "ARKA_KEY_PREFIX": "lum", "ARKA_SALES_EMAIL": "hello@lumen.example"}
    pages = request.getfixturevalue("pages_now")
    for name, page in pages.items():
        # Field names of settings keep the project's own prefix.
        source = re.sub(r"ARKA_(BRAND|PLANS_FILE|PUBLIC_URL|SALES_EMAIL|SMTP_URL)", "", page.source)
        assert "arka" not in source.lower(), name
        assert "Lumen" in page.first("title"), name
        assert "mailto:hello@lumen.example" in page.links, name
    assert "$LUM_API_KEY" in pages["shown once"].text


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_names_the_brand_by_itself(path: Path) -> None:
    source = re.sub(r"ARKA_(BRAND|PLANS_FILE|PUBLIC_URL|SALES_EMAIL|SMTP_URL)", "", path.read_text())
    assert "arka" not in source.lower()
    assert "|safe" not in source


def test_pages_are_not_kept_and_are_safe_to_frame_nowhere(owner: Visitor) -> None:
    for path in ("/overview", "/keys", "/keys/new", "/nowhere"):
        answer = owner.one_request("GET", path)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "data:" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_pages_behind_the_sign_in_lead_to_it_and_back(app: Flask, visitor: Visitor) -> None:
    for path in (
        "/overview",
        "/workspaces",
        "/keys",
        "/keys/new",
        "/keys/key_x",
        "/keys/providers",
        "/playground",
        "/quickstart",
        "/usage",
        "/usage.csv",
        "/keys/scopes",
        "/keys/refusals",
        "/plan",
        "/plan/request",
        "/operator",
        "/operator/requests/1",
    ):
        answer = visitor.one_request("GET", path)
        assert answer.status_code == 303
        assert answer.headers["Location"] == f"/sign-in?next={path}"
    assert visitor.one_request("GET", "/").headers["Location"] == "/sign-in"


def test_a_bearer_key_opens_no_page(visitor: Visitor, mint: Mint) -> None:
    header = {"Authorization": f"Bearer {mint().secret.reveal()}"}
    assert visitor.one_request("GET", "/keys", headers=header).status_code == 303


def test_a_failure_says_what_to_quote(app: Flask, owner: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the cause, which is for the log")

    monkeypatch.setattr("services.keys.living", fail)
    app.testing = False
    answer = owner.one_request("GET", "/keys")
    assert answer.status_code == 500
    assert "Something went wrong on our side" in answer.text
    assert answer.headers["X-Request-Id"] in answer.text
    assert "the cause" not in answer.text
    # The frame is still there, although nothing may be asked of the database any more.
    assert "alice@northwind.example" in answer.text


def test_pages_are_light(every_page: dict[str, Html], owner: Visitor) -> None:
    """The budget of the design, compressed: 100 kB and 8 requests at first, 15 kB and no more files afterwards."""
    for name, page in every_page.items():
        files = {v for tag, a, v in page.attributes if (tag, a) in {("link", "href"), ("script", "src")}}
        assert len(files) + 2 <= 8, name  # the page itself and the icons, which every picture names
        assert len(gzip.compress(page.source.encode())) < 15_000, name
    first = sum(len(gzip.compress(owner.one_request("GET", file).data)) for file in files)
    assert first + 15_000 < 100_000
    for name, most in (("portal.css", 12_000), ("portal.js", 4_000)):
        assert len(gzip.compress((ROOT / "static" / name).read_bytes())) < most
    assert "url(" not in (ROOT / "static" / "portal.css").read_text()
