"""The audit log: a page with filters, and the same as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, current_app, render_template, request, url_for

from blueprints import csv_lines
from blueprints.guards import current_workspace, role_required
from blueprints.presenters import act_title, audit_view, kind_title
from models import AuditEvent
from services import audit, audit_checks
from services.audit import Wanted

bp = Blueprint("audit", __name__)

PER_PAGE = 50
_LONGEST = 100
_MOST_DIGITS = 9
_LINES_AT_ONCE = 500
_NAMES = {"who": "actor", "what": "action", "about": "object_id"}


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks the page for, as it was typed; what is wrong with it, by field."""

    typed: dict[str, str]
    wanted: Wanted
    problems: dict[str, str] = field(default_factory=dict)

    def address(self, endpoint: str = "audit.show", **changed: Any) -> str:
        """Return the address of this question; what is not asked for is left out."""
        asked = {name: value for name, value in self.typed.items() if value}
        return url_for(endpoint, **{**asked, **changed})


def _question() -> Question:
    names = (*_NAMES, "from", "to")
    typed = {name: request.args.get(name, "").strip()[:_LONGEST] for name in names}
    problems: dict[str, str] = {}
    since, until = (_day(typed, name, problems) for name in ("from", "to"))
    if since and until and since > until:
        problems["to"] = "Enter a day that is not before the first"
    if problems:
        since = until = None
    chosen = {wanted: typed[name] or None for name, wanted in _NAMES.items()}
    # The last day is meant with all of its hours.
    wanted = Wanted(**chosen, since=since, until=until and until + timedelta(days=1))
    return Question(typed, wanted, problems)


def _day(typed: dict[str, str], name: str, problems: dict[str, str]) -> datetime | None:
    if not typed[name]:
        return None
    try:
        day = date.fromisoformat(typed[name])
    except ValueError:
        day = None
    if day is None or not 1971 <= day.year <= 9990:
        problems[name] = "Enter a day like 2026-11-20"
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _number(name: str) -> int | None:
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


@bp.get("/audit")
@role_required("admin")
def show() -> tuple[str, int]:
    workspace, question = current_workspace(), _question()
    before, after = _number("before"), _number("after")
    found, more = audit.page(workspace, question.wanted, limit=PER_PAGE, before=before, after=after)
    # Looked at from the older side, there is always something older.
    older = more if after is None else bool(found)
    newer = (more if after is not None else before is not None) and bool(found)
    asked = any(question.typed.values())
    actions = audit.actions(workspace)
    page = render_template(
        "audit/show.html",
        question=question,
        entries=[audit_view(event) for event in found],
        older=question.address(before=found[-1].number) if older else None,
        newer=question.address(after=found[0].number) if newer else None,
        check=audit_checks.check_of(workspace),
        actors=audit.actors(workspace),
        actions=[(action, act_title(action)) for action in actions],
        kinds=_kinds(actions),
        asked=asked,
    )
    return page, 422 if question.problems else 200


def _kinds(actions: Iterable[str]) -> list[tuple[str, str]]:
    return [(kind, kind_title(kind)) for kind in sorted({action.partition(":")[0] for action in actions})]


@bp.get("/audit.csv")
@role_required("admin")
def download_csv() -> Response:
    """Send every entry that fits the filter, the oldest first, however many there are."""
    return _file("csv", lambda events: csv_lines.lines(COLUMNS, events), csv_lines.CONTENT_TYPE)


@bp.get("/audit.json")
@role_required("admin")
def download_json() -> Response:
    """Send the same as JSON, with what binds the entries to each other."""
    return _file("json", _json_pieces, "application/json")


def _file(kind: str, pieces: Callable[[Iterable[AuditEvent]], Iterator[Any]], content_type: str) -> Response:
    workspace, question = current_workspace(), _question()
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    name = f"audit-{workspace.slug}.{kind}"
    # A filter that cannot be understood must not be taken for none.
    events = audit.entries(workspace.id, question.wanted) if not question.problems else iter(())
    response = Response(csv_lines.within(app, pieces(events)), content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.status_code = 422 if question.problems else 200
    return response


def _json_pieces(events: Iterable[AuditEvent]) -> Iterator[str]:
    buffer = ["["]
    for number, event in enumerate(events):
        buffer.append((",\n" if number else "\n") + orjson.dumps(_as_json(event)).decode())
        if len(buffer) >= _LINES_AT_ONCE:
            yield "".join(buffer)
            buffer.clear()
    buffer.append("\n]\n")
    yield "".join(buffer)


def _as_json(event: AuditEvent) -> dict[str, Any]:
    names = ("number", "at", "actor_kind", "actor_id", "actor_name", "action", "object_id", "object_name")
    told = {name: getattr(event, name) for name in (*names, "details", "address", "client", "hash_version")}
    return {**told, "hash": event.hash.hex()}


def _plain(name: str) -> Callable[[AuditEvent], Any]:
    return lambda event: getattr(event, name)


COLUMNS: dict[str, Callable[[AuditEvent], Any]] = {
    **{name: _plain(name) for name in ("number", "at", "actor_name", "action", "object_name", "address", "client")},
    "what": lambda event: act_title(event.action),
    "details": lambda event: orjson.dumps(event.details).decode() if event.details else None,
    **{name: _plain(name) for name in ("actor_kind", "actor_id", "object_id")},
}
