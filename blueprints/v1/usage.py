"""``GET /v1/usage`` and ``GET /v1/usage/calls``: what calls came to, and the calls themselves.

A publishable key stands in web pages for everybody to read, so it is told of no money and of no caller's address.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import Response, request

from blueprints.v1 import asked, bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import bad_cursor, cursor_after
from models import Workspace
from models.base import now
from services import keys, usage
from services.errors import InvalidRequest, NotFound
from services.money import as_usd
from services.permissions import Scope
from services.usage import DAY, HOUR, OTHERS, PLAYGROUND, Figures, Period, Wanted

GROUPS = ("day", "hour", "key", "model", "provider")
USUAL_DAYS = 30
MOST_DAYS, MOST_HOURS = 366, 31 * 24
_FILTERS = ("from", "to", "key", "model", "provider")
LONGEST = 200
_MOST_DIGITS = 18


@bp.get("/usage")
@bearer_required(Scope.USAGE_READ)
def show_usage() -> Response:
    asked.refuse_unknown((*_FILTERS, "group_by"))
    workspace, wanted = current_workspace(), _wanted()
    group = request.args.get("group_by", "day")
    if group not in GROUPS:
        raise InvalidRequest(f"Give one of {', '.join(GROUPS)}.", param="group_by")
    period = _period(HOUR if group == "hour" else DAY)
    report = usage.report(workspace, period, wanted)
    if group in ("day", "hour"):
        data = [{group: _part(part.start, group), **_figures(part.figures)} for part in report.parts]
    elif group == "key":
        data = _by_key(workspace, report.by_key)
    else:
        by_name = report.by_model if group == "model" else report.by_provider
        data = [{group: name, **_figures(figures)} for name, figures in _ordered(by_name)]
    return json_response(
        {**_head("usage", period, wanted), "group_by": group, "total": _figures(report.total), "data": data}
    )


@bp.get("/usage/calls")
@bearer_required(Scope.USAGE_READ)
def list_calls() -> Response:
    asked.refuse_unknown((*_FILTERS, "limit", "cursor"))
    workspace, wanted, period = current_workspace(), _wanted(), _period(DAY)
    try:
        found, has_more = usage.page(workspace, period, wanted, limit=asked.limit(), before=asked.before(_MOST_DIGITS))
    except NotFound:
        raise bad_cursor() from None
    return json_response(
        {
            **_head("list", period, wanted),
            "data": [_call(call) for call in found],
            "has_more": has_more,
            "next_cursor": cursor_after(str(found[-1].id)) if has_more else None,
        }
    )


def _head(kind: str, period: Period, wanted: Wanted) -> dict[str, Any]:
    filters = {"key": wanted.key_id, "model": wanted.model, "provider": wanted.provider}
    return {"object": kind, "from": moment(period.start), "to": moment(period.end), "filter": filters}


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "failed": figures.failed,
        "rate_limited": figures.limited,
        "input_tokens": figures.input_tokens,
        "cached_input_tokens": figures.cached_input_tokens,
        "output_tokens": figures.output_tokens,
        "cost_usd": _usd(figures.cost_nano_usd),
        "unknown_cost_calls": figures.unknown,
        "estimated_calls": figures.estimated,
    }


def _by_key(workspace: Workspace, by_key: dict[str | None, Figures]) -> list[dict[str, Any]]:
    # Keys beyond the most that are told one by one have a name of their own.
    names = {OTHERS: OTHERS} | keys.names_of(workspace, [key_id for key_id in by_key if key_id])
    return [
        {"key": key_id or PLAYGROUND, "name": names.get(key_id or "", "Playground"), **_figures(figures)}
        for key_id, figures in _ordered(by_key)
    ]


def _ordered(by_name: dict[str | None, Figures]) -> list[tuple[str | None, Figures]]:
    return sorted(by_name.items(), key=lambda item: (-item[1].requests, item[0] or ""))


def _part(begin: datetime, group: str) -> str | None:
    return f"{begin:%Y-%m-%d}" if group == "day" else moment(begin)


def _call(call: Any) -> dict[str, Any]:
    private = current_call().key.kind == "publishable"
    return {
        "request_id": call.request_id,
        "started_at": moment(call.started_at),
        "key": call.api_key_id or PLAYGROUND,
        "environment": call.environment,
        "endpoint": call.endpoint,
        "requested_model": call.requested_model,
        "model": call.model,
        "provider": call.provider,
        "route_reason": call.route_reason,
        "status": call.status,
        "code": call.code,
        "streamed": call.streamed,
        "duration_ms": call.duration_ms,
        "input_tokens": call.input_tokens,
        "cached_input_tokens": call.cached_input_tokens,
        "output_tokens": call.output_tokens,
        "estimated": call.estimated,
        "cost_usd": _usd(call.cost_nano_usd),
        "price_version": call.price_version,
        "address": None if private else call.address,
        "client": None if private else call.client,
    }


def _usd(nano_usd: int | None) -> str | None:
    """Return dollars as text; None where the cost is unknown or not this key's to know."""
    return None if nano_usd is None or current_call().key.kind == "publishable" else as_usd(nano_usd)


# ---- What is asked for


def _wanted() -> Wanted:
    return Wanted(*asked.texts(("key", "model", "provider"), LONGEST))


def _period(step: timedelta) -> Period:
    """Read ``from`` and ``to``; without them, the last 30 days with today. Raises InvalidRequest."""
    tomorrow = now().replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    end = asked.moment("to") or tomorrow
    start = asked.moment("from") or end - USUAL_DAYS * DAY
    if start >= end:
        raise InvalidRequest("'from' must be before 'to'.", param="from")
    most = MOST_HOURS * HOUR if step == HOUR else MOST_DAYS * DAY
    if end - start > most:
        raise InvalidRequest(f"Ask for at most {most.days} days at once.", param="from")
    return Period(start, end, step)
