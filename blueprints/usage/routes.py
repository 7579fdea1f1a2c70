"""The usage page and its file of all calls. What is asked for stands in the address, so that it can be passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, current_app, render_template, request, url_for

from blueprints.guards import current_role, current_workspace, role_required
from blueprints.presenters import provider_title, spending_standings
from blueprints.times import current_zone
from blueprints.usage import bp, export
from blueprints.usage.figures import NameTable, plots_of, span, table_of
from models import Workspace
from services import keys, usage
from services.errors import DatabaseAway
from services.parts import parts
from services.permissions import may_limit_spending
from services.usage import PLAYGROUND, Figures, Period, Report, Wanted

RANGES = {
    "24h": "24 hours",
    "7d": "7 days",
    "14d": "14 days",
    "30d": "30 days",
    "month": "This month",
}
USUAL_RANGE = "14d"
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks the page for."""

    range: str
    wanted: Wanted

    @property
    def title(self) -> str:
        return RANGES[self.range]

    def period(self) -> Period:
        zone = current_zone()
        if self.range == "24h":
            return usage.last_hours(zone=zone)
        return (
            usage.this_month(zone)
            if self.range == "month"
            else usage.last_days(int(self.range.removesuffix("d")), zone)
        )

    def address(self, endpoint: str = "usage.show", **changed: str | None) -> str:
        """Return the address of this question, or of one that differs from it; what is not asked for is left out."""
        wanted = {"key": self.wanted.key_id, "model": self.wanted.model, "provider": self.wanted.provider}
        values: dict[str, Any] = {"range": self.range, **wanted, **changed}
        return url_for(endpoint, **values)


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice among values, each with its title."""

    name: str
    label: str
    chosen: str | None
    choices: list[tuple[str, str]]


def _question() -> Question:
    given = request.args
    asked = given.get("range", "")
    names = (given.get(name, "").strip()[:_LONGEST_NAME] or None for name in ("key", "model", "provider"))
    return Question(asked if asked in RANGES else USUAL_RANGE, Wanted(*names))


@bp.get("/usage")
@role_required("viewer")
def show() -> tuple[str, int]:
    workspace, question = current_workspace(), _question()
    try:
        report = usage.report(workspace, question.period(), question.wanted)
        limits = _limits(workspace)
        ever = report.total.requests > 0 or usage.has_calls(workspace)
    except DatabaseAway:
        return render_template("usage/unavailable.html", question=question), 503
    page = render_template(
        "usage/show.html",
        question=question,
        span=span(report.period),
        ranges=RANGES,
        report=report,
        total=report.total,
        plots=plots_of(report, limits["minutes"] if question.range == "24h" else None, limits["limit"]),
        tables=_tables(workspace, question, report),
        options=_options(workspace, question, report),
        ever=ever,
        **limits,
    )
    return page, 200


@bp.get("/usage.csv")
@role_required("viewer")
def download() -> Response:
    """Send every call of the range and the filter, however many there are."""
    workspace, question = current_workspace(), _question()
    period = question.period()
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    lines = export.within(app, export.lines(usage.calls(workspace, period, question.wanted)))
    name = f"usage-{workspace.slug}-{period.start.astimezone(period.zone):%Y-%m-%d}-{question.range}.csv"
    response = Response(lines, content_type="text/csv; charset=utf-8; header=present")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _limits(workspace: Workspace) -> dict[str, Any]:
    """What counts against the limits of the workspace, whatever the filter."""
    minutes = usage.minutes(workspace, usage.last_hours(zone=current_zone()))
    may_edit = may_limit_spending(current_role())
    return {
        "minutes": minutes,
        "busiest": max(minutes),
        "limit": parts().plans.requests_per_minute(workspace),
        "month": usage.total(workspace, usage.this_month()),
        "standings": spending_standings(workspace),
        "edit_limits": url_for("usage.limits") if may_edit else None,
    }


def _tables(workspace: Workspace, question: Question, report: Report) -> list[NameTable]:
    titles = keys.names_of(workspace, [key_id for key_id in report.by_key if key_id]) | {PLAYGROUND: "Playground"}
    by_key: dict[str | None, Figures] = {name or PLAYGROUND: figures for name, figures in report.by_key.items()}
    ask = question.address
    return [
        table_of("key", "By key", by_key, lambda name: titles.get(name or "", usage.OTHERS), ask),
        table_of("model", "By model", report.by_model, lambda name: name or "No model", ask),
        table_of("provider", "By provider", report.by_provider, provider_title, ask),
    ]


def _options(workspace: Workspace, question: Question, report: Report) -> list[Filter]:
    wanted = question.wanted
    key_ids = [key_id for key_id in (*report.by_key, wanted.key_id) if key_id]
    found = {key.id: key.name for key in keys.living(workspace)} | keys.names_of(workspace, key_ids)
    named = sorted(found.items(), key=lambda item: item[1].casefold())
    models = sorted(report.models | ({wanted.model} if wanted.model else set()))
    providers = sorted(report.providers | ({wanted.provider} if wanted.provider else set()))
    return [
        Filter("key", "Key", wanted.key_id, [*named, (PLAYGROUND, "Playground")]),
        Filter("model", "Model", wanted.model, [(name, name) for name in models]),
        Filter("provider", "Provider", wanted.provider, [(name, provider_title(name)) for name in providers]),
    ]
