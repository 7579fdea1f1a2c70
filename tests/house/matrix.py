"""Who may do what: every route stands in one row of the table of roles (services/permissions.py).

``python -m tests.house.matrix`` prints the table for every route and every kind of caller, and fails when a route has
no row. ``test_matrix.py`` asks each of them by real requests.

A new route is entered in ``PAGES`` under what it is for; one of ``/v1`` needs no entry but the scope on its view.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

import config
from app import create_app
from blueprints import guards
from blueprints.v1 import auth
from services.permissions import MATRIX, Role

# What a page is for: a row of services.permissions.MATRIX, or one of these.
ANYBODY = "anybody"
ACCOUNT = "own account"
OPERATOR = "operator"

PAGES: dict[str, str] = {
    ANYBODY: """
        GET /
        GET /assets/<version>/<name>
        GET POST /confirm/<token>
        GET POST /email/undo/<token>
        GET POST /found-a-key
        GET /found-a-key/done
        GET /healthz
        GET POST /invitations/<token>
        GET POST /invitations/<token>/account
        POST /invitations/<token>/sign-out
        GET /metrics
        GET /readyz
        GET POST /reset
        GET POST /reset/<token>
        GET /reset/sent
        GET POST /setup/<token>
        GET POST /sign-in
        GET POST /sign-in/code
        POST /sign-in/code/passkey
        GET /sign-in/elsewhere
        GET /sign-in/elsewhere/back
        POST /sign-in/passkey
        POST /sign-in/passkey/options
        POST /sign-out
        GET POST /sign-up
        GET /sign-up/sent
        GET /v1/openapi.json
    """,
    ACCOUNT: """
        POST /account/app
        GET POST /account/app/new
        GET POST /account/app/remove
        GET POST /account/email
        POST /account/email/stop
        POST /account/identities/<identity_id>/remove
        GET POST /account/identities/accept/<token>
        GET /account/identities/connect
        GET POST /account/passkeys/<passkey_id>/delete
        GET POST /account/passkeys/<passkey_id>/rename
        GET POST /account/passkeys/new
        POST /account/passkeys/options
        GET POST /account/delete
        GET POST /account/notices
        GET POST /account/password
        GET POST /account/profile
        GET POST /account/recovery-codes
        GET /account/security
        POST /account/sessions/<session_id>/end
        POST /account/sessions/end-others
        GET POST /email/<token>
        GET POST /prove
        POST /prove/elsewhere
        POST /prove/passkey
        GET POST /workspaces
        GET POST /workspaces/new
    """,
    "see": """
        GET /keys
        GET /keys/<key_id>
        GET /keys/<key_id>/deleted
        GET /keys/<key_id>/rotation
        GET /keys/providers
        GET /keys/refusals
        GET /keys/scopes
        GET /overview
        GET /plan
        GET /playground
        GET POST /playground/route
        GET /quickstart
        GET /team
        GET /usage
        GET /usage.csv
        GET /workspace
        GET POST /workspace/leave
    """,
    "keys": """
        GET POST /keys/new
        GET POST /keys/<key_id>/delete
        GET POST /keys/<key_id>/disable
        GET POST /keys/<key_id>/edit
        POST /keys/<key_id>/enable
        GET POST /keys/<key_id>/rotate
        POST /keys/<key_id>/rotation
        POST /keys/<key_id>/rotation/finish
    """,
    "try": """
        POST /playground
    """,
    "connections": """
        GET POST /keys/providers/<name>/delete
        POST /keys/providers/<name>/test
        GET POST /keys/providers/<name>/update
        GET POST /keys/providers/new
        POST /keys/scopes
        GET POST /keys/scopes/<scope_id>/remove
        GET POST /usage/limits
        GET /webhooks
        GET /webhooks/<endpoint_id>
        GET POST /webhooks/<endpoint_id>/delete
        GET /webhooks/<endpoint_id>/deliveries/<delivery_id>
        POST /webhooks/<endpoint_id>/deliveries/<delivery_id>/redeliver
        GET POST /webhooks/<endpoint_id>/disable
        GET POST /webhooks/<endpoint_id>/edit
        POST /webhooks/<endpoint_id>/enable
        GET POST /webhooks/<endpoint_id>/rotate
        POST /webhooks/<endpoint_id>/test
        GET POST /webhooks/new
    """,
    "people": """
        GET /audit
        GET /audit.csv
        GET /audit.json
        GET POST /team/invite
        POST /team/invited/<invitation_id>/resend
        POST /team/invited/<invitation_id>/withdraw
        GET POST /team/members/<user_id>/remove
        POST /team/members/<user_id>/role
    """,
    "workspace": """
        POST /workspace
    """,
    "ownership": """
        POST /keys
        GET POST /plan/request
        POST /plan/request/<request_id>/withdraw
        GET POST /workspace/delete
    """,
    OPERATOR: """
        GET /operator
        GET /operator/accounts
        GET /operator/accounts/people
        GET /operator/mail
        GET /operator/mail/<message_id>
        POST /operator/mail/<message_id>/try-again
        GET /operator/people/<user_id>
        GET POST /operator/people/<user_id>/close
        GET POST /operator/people/<user_id>/reopen
        GET /operator/plans
        GET /operator/requests
        GET /operator/requests/<int:number>
        POST /operator/requests/<int:number>/decline
        POST /operator/requests/<int:number>/grant
        GET /operator/requests/decided
        GET /operator/system
        GET /operator/workspaces/<workspace_id>
        GET POST /operator/workspaces/<workspace_id>/plan
    """,
}

# Who asks: the four roles, a member of another workspace whose browser points at this one, an operator who is no
# member, and nobody.
STRANGER, OUTSIDE_OPERATOR, SIGNED_OUT = "stranger", "operator", "signed out"
ROLES = [role.value for role in Role]
PEOPLE = [*ROLES, STRANGER, OUTSIDE_OPERATOR, SIGNED_OUT]

YES, OWN, NO, ELSEWHERE, SIGN_IN = "yes", "own", "no", "no place", "sign in"
Page = tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """A method of a route: what it is for, and the mark that its view carries."""

    method: str
    rule: str
    ability: str | None
    mark: str

    @property
    def wanted_mark(self) -> str | None:
        """The mark that says what the table says."""
        if self.ability == ANYBODY:
            return "public"
        if self.ability == ACCOUNT:
            return "signed in"
        if self.ability in MATRIX:
            row = MATRIX[self.ability]
            return f"role: {(row.own_from or row.least).value}"
        return OPERATOR if self.ability == OPERATOR else None

    @property
    def agrees(self) -> bool:
        return self.wanted_mark is not None and self.mark.startswith(self.wanted_mark)

    def allowed(self, person: str) -> str:
        """Return what the table promises a person: a word of YES, OWN, NO, ELSEWHERE, SIGN_IN."""
        if self.ability == ANYBODY:
            return YES
        if person == SIGNED_OUT:
            return SIGN_IN
        if self.ability == ACCOUNT:
            return YES
        if self.ability == OPERATOR:
            return YES if person == OUTSIDE_OPERATOR else NO
        if person not in ROLES:
            return ELSEWHERE
        return MATRIX[str(self.ability)].allowed(Role(person))


def declared() -> dict[Page, str]:
    """Return what each page is for, by method and rule."""
    found: dict[Page, str] = {}
    for ability, lines in PAGES.items():
        for line in lines.split("\n"):
            *methods, rule = line.split() or [""]
            for method in methods:
                assert (method, rule) not in found, f"{method} {rule} is entered twice"
                found[method, rule] = ability
    return found


def entries(app: Flask) -> Iterator[Entry]:
    """Yield every page of the app."""
    known = declared()
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        mark = getattr(app.view_functions[rule.endpoint], guards.MARK, None)
        if mark is None:
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Entry(method, rule.rule, known.get((method, rule.rule)), mark)


def endpoints(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Yield method, rule and needed scope of everything under ``/v1`` that asks for a key."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.rule.startswith("/v1/") and not hasattr(app.view_functions[rule.endpoint], guards.MARK):
            scope = getattr(app.view_functions[rule.endpoint], auth.MARK, None)
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield method, rule.rule, str(scope) if scope else ""


def gaps(app: Flask) -> list[str]:
    """Return what is wrong with the table: routes without a row or with another mark, rows without a route."""
    found = list(entries(app))
    wrong = [f"{one.method} {one.rule} has no row" for one in found if one.ability is None]
    wrong += [
        f"{one.method} {one.rule} is marked “{one.mark}”, its row says “{one.wanted_mark}”"
        for one in found
        if one.ability is not None and not one.agrees
    ]
    wrong += [f"{method} {rule} has no scope" for method, rule, scope in endpoints(app) if not scope]
    there = {(one.method, one.rule) for one in found}
    return wrong + [f"{method} {rule} is no route" for method, rule in declared() if (method, rule) not in there]


def printed(app: Flask) -> str:
    """Return the whole table as text."""
    lines = [f"{'page':<52}" + "".join(f"{person:<11}" for person in PEOPLE)]
    for one in sorted(entries(app), key=lambda one: (list(PAGES).index(one.ability or ANYBODY), one.rule)):
        words = [one.allowed(person) if one.ability else "GAP" for person in PEOPLE]
        lines.append(f"{one.method + ' ' + one.rule:<52}" + "".join(f"{word:<11}" for word in words))
    columns = ("key with it", "key without", "another workspace's key", "session, no key")
    lines += ["", f"{'endpoint':<45}{'scope':<40}" + "".join(f"{column:<25}" for column in columns)]
    for method, rule, scope in endpoints(app):
        answers = (YES, "no (403)" if ":" in scope or "asks" in scope else "-", "its own things only", "no (401)")
        lines.append(f"{method + ' ' + rule:<45}{scope:<40}" + "".join(f"{answer:<25}" for answer in answers))
    return "\n".join(lines)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'matrix.db'}"
        app = create_app(config.load({"ARKA_INSTANCE_PATH": folder, "ARKA_DATABASE_URL": url}))
        wrong = gaps(app)
        sys.stdout.write(printed(app) + "\n\n" + ("\n".join(wrong) or "No gap.") + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
