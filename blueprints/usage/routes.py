"""The usage page and its file of all calls. What is asked for stands in the address, so that it can be passed on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Response, current_app, render_template, request, stream_with_context, url_for

from blueprints.guards import current_role, current_workspace, role_required
from blueprints.presenters import spending_standings
from blueprints.usage import bp, export
from blueprints.usage.figures import NameTable, plots_of, table_of
from models import Workspace
from services import keys, usage
from services.errors import DatabaseAway
from services.gateway.simulator import PROVIDER as SIMULATOR
from services.parts import parts
from services.permissions import Role
from services.usage import PLAYGROUND, Period, Report, Wanted

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
        if self.range == "24h":
            return usage.last_hours()
        return usage.this_month() if self.range == "month" else usage.last_days(int(self.range.removesuffix("d")))

    def address(self, endpoint: str = "usage.show", **changed: str | None) -> str:
        """Return the address of this question, or of one that differs from it; what is not asked for is left out."""
        wanted = {"key": self.wanted.key_id, "model": self.wanted.model, "provider": self.wanted.provider}
        return url_for(endpoint, **{"range": self.range, **wanted, **changed})


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
    lines: Iterator[str] = export.lines(usage.calls(workspace, period, question.wanted))
    name = f"usage-{workspace.slug}-{period.start:%Y-%m-%d}-{question.range}.csv"
    response = Response(stream_with_context(lines), content_type="text/csv; charset=utf-8; header=present")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _limits(workspace: Workspace) -> dict[str, object]:
    """What counts against the limits of the workspace, whatever the filter."""
    minutes = usage.minutes(workspace, usage.last_hours())
    may_edit = current_role().includes(Role.ADMIN) and "usage.edit_limits" in current_app.view_functions
    return {
        "minutes": minutes,
        "busiest": max(minutes),
        "limit": parts().plans.requests_per_minute(workspace),
        "month": usage.total(workspace, usage.this_month()),
        "standings": spending_standings(workspace),
        "edit_limits": url_for("usage.edit_limits") if may_edit else None,
    }


def _tables(workspace: Workspace, question: Question, report: Report) -> list[NameTable]:
    names = keys.names_of(workspace, [key_id for key_id in report.by_key if key_id])
    key_names = {**names, None: "Playground"}
    by_key = {PLAYGROUND if key_id is None else key_id: figures for key_id, figures in report.by_key.items()}
    key_titles = {PLAYGROUND: key_names[None], **names}
    return [
        table_of("key", "By key", by_key, lambda name: key_titles.get(name or "", "Deleted key"), question.address),
        table_of("model", "By model", report.by_model, lambda name: name or "No model", question.address),
        table_of("provider", "By provider", report.by_provider, provider_title, question.address),
    ]


def provider_title(name: str | None) -> str:
    if name is None:
        return "No provider"
    table = parts().providers
    return table[name].title if name in table else "Simulator" if name == SIMULATOR else name


def _options(
    workspace: Workspace, question: Question, report: Report
) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Return the filters: name, label, what is chosen, and the values with their titles."""
    wanted = question.wanted
    found = {key.id: key.name for key in keys.living(workspace)}
    found |= keys.names_of(workspace, [key_id for key_id in (*report.by_key, wanted.key_id) if key_id])
    named = sorted(found.items(), key=lambda item: item[1].casefold())
    models = sorted(report.models | ({wanted.model} if wanted.model else set()))
    providers = sorted(report.providers | ({wanted.provider} if wanted.provider else set()))
    return [
        ("key", "Key", wanted.key_id or "", [*named, (PLAYGROUND, "Playground")]),
        ("model", "Model", wanted.model or "", [(name, name) for name in models]),
        ("provider", "Provider", wanted.provider or "", [(name, provider_title(name)) for name in providers]),
    ]
