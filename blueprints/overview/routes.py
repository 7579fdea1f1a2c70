"""Is everything well, and what next?"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, render_template, url_for

from blueprints.guards import current_person, current_role, current_workspace, role_required
from blueprints.presenters import KeyView, ProviderView, audit_lines, key_views, provider_views, spending_standings
from blueprints.times import current_zone
from services import keys, usage
from services.parts import parts
from services.permissions import Role, may_create_keys

bp = Blueprint("overview", __name__)

LOG_LINES = 5
# From this share of a limit on it needs attention.
NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way to the first call. ``address`` is None for who may not take it now."""

    title: str
    hint: str
    done: bool
    address: str | None
    verb: str
    optional: bool = False


@bp.get("/overview")
@role_required("viewer")
def show() -> str:
    workspace, plans = current_workspace(), parts().plans
    shown = key_views(workspace, keys.living(workspace), role=current_role(), user_id=current_person().id)
    providers = provider_views(workspace)
    steps = _steps(shown, providers)
    last_day = usage.last_hours(zone=current_zone())
    limit, busiest = plans.requests_per_minute(workspace), max(usage.minutes(workspace, last_day))
    standings = spending_standings(workspace)
    return render_template(
        "overview/show.html",
        steps=steps,
        next_step=_next_of(steps),
        keys=shown,
        day=usage.total(workspace, last_day),
        month=usage.total(workspace, usage.this_month()),
        busiest=busiest,
        month_limit=next((one for one in standings if (one.owner_id, one.period) == (workspace.id, "month")), None),
        near_the_rate=limit > 0 and busiest >= limit * NEAR,
        near_limits=[one for one in standings if one.spent_nano_usd >= one.limit_nano_usd * NEAR],
        log=audit_lines(workspace, limit=LOG_LINES) if current_role().includes(Role.ADMIN) else [],
        providers=providers,
        warnings=[view for view in shown if view.expired or view.expires_soon or view.due_for_rotation],
        broken_providers=[provider for provider in providers if provider.key.state not in ("valid", "unverified")],
        paused=not plans.has_api_access(workspace),
        limit=limit,
        offer=plans.first_with_api_access,
        may_ask=current_role().value == "owner",
    )


def _next_of(steps: list[Step]) -> Step | None:
    """Return the first undone step, one that may be left out only when nothing else is left."""
    undone = [step for step in steps if not step.done]
    return next((step for step in undone if not step.optional), undone[0] if undone else None)


def _steps(shown: list[KeyView], providers: list[ProviderView]) -> list[Step]:
    """Return the way to the first call, for the person who looks."""
    workspace, offer = current_workspace(), parts().plans.first_with_api_access
    access = parts().plans.has_api_access(workspace)
    may_create = may_create_keys(current_role())
    key_list = url_for("keys.index")
    return [
        Step(
            "Connect a provider",
            "OpenAI or OpenRouter; you pay them directly. Test keys work without one.",
            bool(providers),
            url_for("providers.index"),
            "Provider keys",
            optional=True,
        ),
        Step("Get API access", f"API keys come with the {offer.title} plan.", access, key_list, "See the plan"),
        Step(
            "Create a key",
            "A key lets a program call as this workspace.",
            bool(shown),
            url_for("keys.new") if access and may_create else None,
            "Create New API Key",
        ),
        Step(
            "Make the first call",
            "The quickstart shows how, in three steps.",
            any(view.last_use for view in shown),
            url_for("playground.quickstart"),
            "Quickstart",
        ),
    ]
