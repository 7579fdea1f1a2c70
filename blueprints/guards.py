"""Who may see a page: every page view carries exactly one of ``signed_in``, ``role_required``, ``operator_required``
and ``public``.

A house test reads the mark that they leave on the view. The helpers say whose request it is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from flask import flash, g, redirect, request, session, url_for
from flask_login import UserMixin, current_user, login_user, logout_user
from werkzeug.wrappers import Response

from blueprints import known_devices, proving
from extensions import login_manager
from models import LoginSession, Membership, User, Workspace
from services import second_factor, sessions, workspaces
from services.actor import Actor
from services.errors import NotFound, PermissionRefused
from services.members import note_seen, owners_of
from services.parts import parts
from services.permissions import Role
from services.secret import Secret

View = Callable[..., Any]
MARK = "page_guard"
ASKS_AGAIN = "asks_again"

# The pages by which a second factor is set up.
_OPEN_WITHOUT_SECOND_FACTOR = {"account", "profile"}
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")


class Principal(UserMixin):  # type: ignore[misc]
    """What Flask-Login keeps about a signed-in browser: its session row, found by the token in the cookie."""

    def __init__(self, login_session: LoginSession, token: Secret) -> None:
        self.login_session = login_session
        self.token = token

    def get_id(self) -> str:
        """Return what the signed cookie holds: the session's token."""
        return self.token.reveal()


@dataclass(frozen=True, slots=True)
class WorkspaceFrame:
    """What the frame of a page says about the workspace in view."""

    id: str
    name: str
    slug: str
    plan_title: str
    role: Role


@dataclass(frozen=True, slots=True)
class Shell:
    """What the frame of a signed-in page shows. Plain values: an error page may need them without the database."""

    email: str
    workspace: WorkspaceFrame | None
    name: str
    time_zone: str
    theme: str | None
    is_operator: bool = False
    # In the operator's console no workspace is in view.
    in_console: bool = False


# ---- Marks on views


def public(reason: str) -> Callable[[View], View]:
    """Mark a view that anybody may see, and say why."""

    def decorate(view: View) -> View:
        return _marked(view, f"public: {reason}")

    return decorate


def signed_in(view: View) -> View:
    """Let in who is signed in, whatever the workspace; others go to the sign-in page and come back."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        shell = _admitted()
        return shell if isinstance(shell, Response) else view(*args, **kwargs)

    return _marked(guarded, "signed in")


def role_required(name: str) -> Callable[[View], View]:
    """Let in members of the present workspace who have at least this role; ``viewer`` is every member."""
    needed = Role(name)

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            shell = _admitted()
            if isinstance(shell, Response):
                return shell
            if shell.workspace is None:
                return redirect(url_for("workspace.switcher"), 303)
            if not shell.workspace.role.includes(needed):
                raise PermissionRefused(_lacking(needed))
            return view(*args, **kwargs)

        return _marked(guarded, f"role: {needed.value}")

    return decorate


def operator_required(view: View) -> View:
    """Let in operators. For anybody else who is signed in there is no such page, as for an address nobody knows."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        shell = _admitted()
        if isinstance(shell, Response):
            return shell
        if not shell.is_operator:
            # The page that says so is the one of every unknown address, which has no frame.
            g.pop("shell")
            raise NotFound
        g.workspace = None
        g.shell = replace(shell, workspace=None, in_console=True)
        return view(*args, **kwargs)

    return _marked(guarded, "operator")


def recently_proved(view: View) -> View:
    """Ask who is signed in to prove it again, on a page of its own, when the last time is too long ago.

    For delicate acts; stands below ``role_required``, ``operator_required`` or ``signed_in``. A form that was sent too
    late is carried over the question and goes on with what was typed.
    """

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        held_up = proving.hold_up(current_session(), current_actor())
        return view(*args, **kwargs) if held_up is None else held_up

    setattr(guarded, ASKS_AGAIN, True)
    return guarded


def _admitted() -> Shell | Response:
    """Return who asks, or where they have to go first."""
    shell = _enter()
    return to_sign_in() if shell is None else _held_back() or shell


def _held_back() -> Response | None:
    """Lead to the account's own pages whoever has to set a second factor up first."""
    if request.blueprint in _OPEN_WITHOUT_SECOND_FACTOR or not second_factor.is_missing(current_session()):
        return None
    flash("This portal asks everybody for a second factor. Set one up to go on.", "warn")
    return redirect(url_for("account.security", _anchor="second-factor-h"), 303)


def _marked(view: View, mark: str) -> View:
    setattr(view, MARK, mark)
    return view


def _lacking(needed: Role) -> str:
    owners = " or ".join(f"{owner.display_name} (owner)" for owner in owners_of(current_workspace()))
    return f"You need the {needed.value} role for this." + (f" Ask {owners}." if owners else "")


# ---- Signing in and out


def begin_session(token: Secret) -> None:
    """Sign this browser in with a session's token. What the cookie held before is dropped."""
    login_session = sessions.find(token)
    if login_session is None:
        raise NotFound
    session.clear()
    login_user(Principal(login_session, token))
    session.permanent = login_session.remembered
    known_devices.remember(login_session.user.email)


def end_session() -> None:
    """Sign this browser out; the session's row is deleted, so a copied cookie is worth nothing any more."""
    if current_user.is_authenticated:
        sessions.end(current_user.token)
    logout_user()
    session.clear()


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load_principal(token: str) -> Principal | None:
    """Find who a cookie stands for; None when the session has ended."""
    secret = Secret(token)
    login_session = sessions.find(secret)
    # A session that began while the operator closed the account.
    if login_session is None or login_session.user.closed_at is not None:
        return None
    return Principal(login_session, secret)


def to_sign_in() -> Response:
    """Send to the sign-in page, and back here afterwards when this address can simply be opened again."""
    target = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None
    return redirect(url_for("account.sign_in", next=target if target != "/" else None), 303)


def local_path(target: str | None) -> str | None:
    """Return ``target`` when it is a path of this portal, else None.

    Browsers read ``//host`` and ``/\\host`` as another host and drop control characters on the way, so none may pass.
    """
    if not target or not target.startswith("/") or target.startswith("//") or _CONTROL.search(target):
        return None
    return target


# ---- Whose request it is


def _enter() -> Shell | None:
    """Find out who asks, once for each request; None for a stranger."""
    if not current_user.is_authenticated:
        return None
    login_session = current_session()
    membership = workspaces.find_membership(login_session.user_id, login_session.workspace_id)
    g.workspace = membership.workspace if membership else None
    if membership is not None:
        note_seen(membership)
    user = login_session.user
    frame = _frame_of(membership) if membership else None
    g.shell = Shell(user.email, frame, user.display_name, user.time_zone, user.theme, user.is_operator)
    return cast(Shell, g.shell)


def _frame_of(membership: Membership) -> WorkspaceFrame:
    workspace = membership.workspace
    plan = parts().plans.plan_of(workspace)
    return WorkspaceFrame(workspace.id, workspace.name, workspace.slug, plan.title, Role(membership.role))


def entered() -> Shell | None:
    """Return the shell of this request if its guard has let somebody in. Reads nothing, so error pages may ask."""
    return cast("Shell | None", g.get("shell"))


def current_session() -> LoginSession:
    return cast(LoginSession, current_user.login_session)


def current_person() -> User:
    return current_session().user


def current_workspace() -> Workspace:
    """The workspace this browser looks at; only behind ``role_required``."""
    if g.get("workspace") is None:
        raise NotFound
    return cast(Workspace, g.workspace)


def current_role() -> Role:
    """The person's role in the present workspace; only behind ``role_required``."""
    shell = entered()
    if shell is None or shell.workspace is None:
        raise NotFound
    return shell.workspace.role


def current_actor() -> Actor:
    """Who the audit log names for what this request does."""
    person = current_person()
    return Actor(kind="user", id=person.id, name=person.email, address=client_address(), client=client_name())


def operator_actor() -> Actor:
    """Who the audit log of a customer's workspace names for what this request does; only behind
    ``operator_required``."""
    return replace(current_actor(), kind="operator")


def client_address() -> str | None:
    return request.remote_addr


def client_name() -> str | None:
    """The browser's name for itself, cut to what the tables hold."""
    return (request.user_agent.string or "")[:200] or None
