"""``GET /v1/billing``: the plan, its limits, and what was spent of them this month."""

from __future__ import annotations

from flask import Response

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from services import spending, usage
from services.money import as_usd
from services.parts import parts
from services.permissions import Scope


@bp.get("/billing")
@bearer_required(Scope.BILLING_READ)
def show_billing() -> Response:
    workspace, plans = current_workspace(), parts().plans
    plan, month = plans.plan_of(workspace), usage.this_month()
    spent = usage.total(workspace, month)
    return json_response(
        {
            "object": "billing",
            "plan": {"name": plan.name, "title": plan.title, "price": plan.price, "api_access": plan.api_access},
            "limits": {"requests_per_minute": plans.requests_per_minute(workspace)},
            "month": {
                "from": moment(month.start),
                "cost_usd": as_usd(spent.cost_nano_usd),
                "unknown_cost_calls": spent.unknown,
                "estimated_calls": spent.estimated,
            },
            "spending_limits": [_limit(standing) for standing in spending.standing(workspace)],
        }
    )


def _limit(standing: spending.Standing) -> dict[str, object]:
    return {
        "title": standing.title,
        "owner": standing.owner_id,
        "period": standing.period,
        "limit_usd": as_usd(standing.limit_nano_usd),
        "spent_usd": as_usd(standing.spent_nano_usd),
        "held_usd": as_usd(standing.held_nano_usd),
        "resets_at": moment(standing.resets_at),
    }
